"""An extra is installed from where the package was."""

from adm_jax.io import extras


def test_an_extra_comes_from_where_the_package_does(tmp_path):
  wheel = tmp_path / 'adm jax.whl'
  wheel.touch()
  elsewhere = 'https://example.org/a.whl'
  for address, wanted in ((tmp_path.as_uri(), f'{tmp_path}[export]'),
                          (wheel.as_uri(), f'adm_jax[export] @ {wheel.as_uri()}'),
                          (elsewhere, f'adm_jax[export] @ {elsewhere}'),
                          ((tmp_path / 'gone.whl').as_uri(), 'adm_jax[export]'),
                          ('', 'adm_jax[export]')):
    assert extras._requirement('export', address) == wanted


def test_what_came_from_a_repository_comes_from_there_at_its_commit():
  noted = {'url': 'https://example.org/a.git', 'vcs_info': {'vcs': 'git', 'commit_id': 'abc'}}
  assert extras._requirement('export', extras._address(noted)) == (
      'adm_jax[export] @ git+https://example.org/a.git@abc')
