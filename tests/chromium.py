"""A browser without a window, for tests of pages; they are skipped where there is none."""

import contextlib
import shutil
from typing import Any, Iterator

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
                None)
needed = pytest.mark.skipif(CHROMIUM is None or shutil.which('chromedriver') is None,
                            reason='needs chromium and chromedriver (apt install '
                            'chromium chromium-driver)')


@contextlib.contextmanager
def opened() -> Iterator[Any]:
  """Gives Selenium's driver of a window of 1200 x 900."""
  from selenium import webdriver
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for word in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu',
               '--window-size=1200,900'):
    options.add_argument(word)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  driver = webdriver.Chrome(options=options,
                            service=webdriver.ChromeService(shutil.which('chromedriver')))
  driver.set_script_timeout(120)
  try:
    yield driver
  finally:
    driver.quit()


def done(driver: Any) -> int:
  """How many requests a page has shown whole."""
  return int(driver.find_element('css selector', 'body').get_attribute('data-done') or 0)


def unnamed(driver: Any) -> list[str]:
  """The controls that a screen reader has no name for, by their ids."""
  return driver.execute_script('''
      return [...document.querySelectorAll('input, select, button, a')]
          .filter(each => !(each.labels?.length || each.textContent.trim() || each.ariaLabel))
          .map(each => each.id);''')


def fits_a_phone(driver: Any) -> bool:
  driver.set_window_size(500, 900)  # as narrow as Chromium's windows get
  try:
    return driver.execute_script('return document.documentElement.scrollWidth <= innerWidth')
  finally:
    driver.set_window_size(1200, 900)
