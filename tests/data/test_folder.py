"""Folders and zips of images: which they are, what class, and which pixels."""

import io
import json
import os
import pickle
import socket
import zipfile

import numpy as np
import pytest
from PIL import Image

from adm_jax.data import crops, loading
from adm_jax.data.folder import Folder
from adm_jax.data.sources import UnreadableImage
from adm_jax.errors import UsageError

SHAPES = ((12, 17), (20, 11), (9, 9))  # (H, W)


def _photo(index: int, height: int, width: int, channels: int = 3) -> np.ndarray:
  """Smooth, so that JPEG hardly changes it."""
  y, x = np.mgrid[:height, :width] / 20
  waves = [np.sin(x * (i + 1) + y + index) for i in range(channels)]
  return np.stack([(wave * 100 + 128).astype(np.uint8) for wave in waves], axis=-1)


def _write(folder, name: str, image: Image.Image, **kwargs) -> None:
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  image.save(path, **kwargs)


@pytest.fixture
def pets(tmp_path):
  """Nine PNGs of three sizes in three sub-folders, beside files that are no images."""
  for i in range(9):
    name = f'{("owl", "cat", "dog")[i % 3]}/x{i}.png'
    _write(tmp_path / 'pets', name, Image.fromarray(_photo(i, *SHAPES[i % 3])))
  (tmp_path / 'pets' / 'README.txt').write_text('none')
  (tmp_path / 'pets' / 'cat' / '._x1.png').write_bytes(b'of a Mac')
  return tmp_path / 'pets'


def _zipped(folder, target, method=zipfile.ZIP_DEFLATED, top=''):
  with zipfile.ZipFile(target, 'w', method) as archive:
    for path in sorted(folder.rglob('*')):
      archive.write(path, f'{top}{path.relative_to(folder)}')
  return target


def _equal(one, other):
  assert len(one) == len(other)
  for a, b in zip((one[i] for i in range(len(one))), (other[i] for i in range(len(other)))):
    np.testing.assert_array_equal(a['image'], b['image'])
    assert a['label'] == b['label']


def test_sub_folders_are_classes_and_pixels_are_adms_crop(pets):
  source = Folder(pets, image_size=8)
  assert source.class_names == ('cat', 'dog', 'owl') and source.image_shape == (8, 8, 3)
  assert source.files == sorted(source.files) and len(source) == 9
  for i, name in enumerate(source.files):
    want = crops.center_crop(Image.open(pets / name).convert('RGB'), 8)
    np.testing.assert_array_equal(source[i]['image'], want)
    assert source[i]['image'].dtype == np.uint8
    assert source.class_names[source[i]['label']] == name.split('/')[0]


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize('top', ['', 'a_folder/around_everything/'])
def test_a_zip_is_the_folder_that_was_zipped(pets, tmp_path, method, top):
  packed = Folder(_zipped(pets, tmp_path / 'pets.zip', method, top), image_size=8)
  assert packed.class_names == ('cat', 'dog', 'owl')
  _equal(packed, Folder(pets, image_size=8))


@pytest.mark.parametrize('packed', [False, True])
def test_a_copy_in_another_process_reads_the_same(pets, tmp_path, packed):
  """It takes no open file along: both go on reading, in any order."""
  source = Folder(_zipped(pets, tmp_path / 'pets.zip') if packed else pets, image_size=8)
  _equal(pickle.loads(pickle.dumps(source)), source)


def test_labels_from_the_prefix_as_in_the_reference(tmp_path):
  for name in ('dog_b_1.png', 'cat_9.png', 'deep/er/cat_1.png'):
    _write(tmp_path / 'flat', name, Image.fromarray(_photo(0, 9, 9)))
  source = Folder(tmp_path / 'flat', image_size=8, labels='prefix')
  assert source.files == ['cat_9.png', 'deep/er/cat_1.png', 'dog_b_1.png']
  assert source.class_names == ('cat', 'dog') and source.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize('suffix, write', [
    ('.csv', lambda table: 'file,label\n' + ''.join(f'{a},{b}\n' for a, b in table.items())),
    ('.csv', lambda table: ''.join(f'{a}, {b}\n' for a, b in table.items())),
    ('.json', json.dumps), ('.json', lambda table: json.dumps({'labels': list(table.items())}))])
@pytest.mark.parametrize('names', [True, False])
def test_labels_from_a_list(pets, tmp_path, suffix, write, names):
  classes = ('red', 'green', 'blue') if names else (4, 0, 2)
  files = Folder(pets, 8).files
  wanted = {name: classes[i % 3] for i, name in enumerate(files)}
  path = tmp_path / f'list{suffix}'
  path.write_text(write(wanted))
  source = Folder(pets, image_size=8, labels=str(path))
  assert source.class_names == (('blue', 'green', 'red') if names else tuple('01234'))
  for i, name in enumerate(files):
    assert source.class_names[source[i]['label']] == str(wanted[name])


def test_without_labels_there_are_no_classes(pets):
  source = Folder(pets, image_size=8, labels=None)
  assert source.class_names == () and all(source[i]['label'] == 0 for i in range(9))


def test_without_a_crop_the_size_is_the_images_own(tmp_path):
  for i in range(3):
    _write(tmp_path / 'same', f'{i}.png', Image.fromarray(_photo(i, 10, 14)))
  source = Folder(tmp_path / 'same', crop=None, labels=None)
  assert source.image_shape == (10, 14, 3)
  np.testing.assert_array_equal(source[2]['image'], _photo(2, 10, 14))


def _one(tmp_path, image, name='one.png', channels=3, **kwargs):
  """What a folder makes of one image, uncropped."""
  _write(tmp_path / 'one', name, image, **kwargs)
  return Folder(tmp_path / 'one', crop=None, labels=None, channels=channels)[0]['image']


def test_gray_levels_show_as_gray(tmp_path):
  gray = _photo(3, 10, 14, 1)
  got = _one(tmp_path, Image.fromarray(gray[..., 0]))
  np.testing.assert_array_equal(got, np.repeat(gray, 3, axis=-1))


def test_one_channel_is_the_gray_level_of_colors(tmp_path):
  image = Image.fromarray(_photo(3, 10, 14))
  got = _one(tmp_path, image, channels=1)
  luma = np.asarray(image) @ (0.299, 0.587, 0.114)  # ITU-R 601
  assert got.shape == (10, 14, 1) and np.abs(got[..., 0] - luma).max() <= 1


def test_16_bit_gray_is_scaled_not_cut(tmp_path):
  levels = np.linspace(0, 65535, 140).reshape(10, 14).astype(np.uint16)
  got = _one(tmp_path, Image.fromarray(levels))
  assert np.abs(got - levels[..., None] / 257).max() <= 0.5


def test_palettes_are_looked_up(tmp_path):
  """40 colors, which a palette holds exactly."""
  colors = np.random.default_rng(0).integers(0, 256, (40, 3), np.uint8)
  pixels = colors[np.arange(140).reshape(10, 14) % 40]
  for name in ('one.png', 'one.gif'):
    image = Image.fromarray(pixels).convert('P', palette=Image.Palette.ADAPTIVE, colors=64)
    np.testing.assert_array_equal(_one(tmp_path / name, image, name), pixels)


def test_transparent_pixels_are_white_and_opaque_ones_untouched(tmp_path):
  pixels = _photo(1, 10, 14, 4)
  pixels[..., 3] = 255
  pixels[:5, :, 3] = 0
  got = _one(tmp_path, Image.fromarray(pixels))
  assert (got[:5] == 255).all()
  np.testing.assert_array_equal(got[5:], pixels[5:, :, :3])


@pytest.mark.parametrize('color', [(1, 2, 3), 7])
def test_pixels_of_the_color_that_stands_for_transparent_are_white(tmp_path, color):
  channels = 1 if color == 7 else 3
  pixels = _photo(1, 10, 14, channels) | 128
  pixels[:5] = color
  image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
  got = _one(tmp_path, image, channels=channels, transparency=color)
  assert (got[:5] == 255).all()
  np.testing.assert_array_equal(got[5:], pixels[5:])


def test_cmyk_comes_out_in_its_colors(tmp_path):
  pixels = _photo(1, 16, 16)
  got = _one(tmp_path, Image.fromarray(pixels).convert('CMYK'), 'one.jpg', quality=100)
  assert np.abs(got.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
def test_photographs_are_turned_as_the_camera_was(tmp_path, orientation, suffix):
  """The tag says which way the stored image is to be turned; the upright one is asymmetric."""
  upright = Image.fromarray(_photo(1, 16, 32))
  T = Image.Transpose
  stored = {1: None, 2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE,
            6: T.ROTATE_90, 7: T.TRANSVERSE, 8: T.ROTATE_270}[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  image = upright if stored is None else upright.transpose(stored)
  quality = {} if suffix == 'png' else {'quality': 100}
  got = _one(tmp_path, image, f'one.{suffix}', exif=exif, **quality)
  assert got.shape == (16, 32, 3)
  assert np.abs(got.astype(int) - np.asarray(upright)).mean() < 4


def test_random_crops_follow_their_generator_and_plain_access_is_the_center(pets):
  source, center = Folder(pets, 8, crop='random'), Folder(pets, 8)
  _equal(source, center)
  def draws(seed):
    return [source.read(0, np.random.default_rng([seed, i]))['image'].tobytes() for i in range(9)]
  assert draws(0) == draws(0) and len(set(draws(0))) > 3


def test_a_damaged_image_is_named(pets):
  path = pets / 'cat' / 'x1.png'
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(UnreadableImage, match='cat/x1.png'):
    Folder(pets, image_size=8)[0]


def test_images_of_the_system_in_a_zip_are_passed_over(pets, tmp_path):
  path = _zipped(pets, tmp_path / 'pets.zip')
  with zipfile.ZipFile(path, 'a') as archive:
    archive.writestr('__MACOSX/cat/x1.png', b'not an image')
  assert len(Folder(path, image_size=8)) == 9


def _refused(match, *args, **kwargs):
  with pytest.raises(UsageError, match=match) as error:
    Folder(*args, **kwargs)
  assert '\n' not in str(error.value)


def test_what_cannot_be_a_data_set_is_one_line(pets, tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'text.csv').write_text('a,0\n')
  (tmp_path / 'bad.json').write_text('[1, 2')
  _refused('there is no', tmp_path / 'absent', image_size=8)
  _refused('neither a folder nor a .zip', tmp_path / 'text.csv', image_size=8)
  _refused('holds no image', tmp_path / 'empty', image_size=8)
  _refused("crop 'middle' is unknown", pets, image_size=8, crop='middle')
  _refused('needs an image_size', pets)
  _refused('channels=4', pets, image_size=8, channels=4)
  _refused('image_size=0', pets, image_size=0)
  _refused(r'x\d.png is \d+ x \d+ .*crop=.center', pets, crop=None)
  _refused('lies in no sub-folder', pets / 'cat', image_size=8)
  _refused("no '_' after its class", pets, image_size=8, labels='prefix')
  _refused("'birds' is no file", pets, image_size=8, labels='birds')
  _refused('no label for cat/x1.png and 8 more', pets, image_size=8,
           labels=str(tmp_path / 'text.csv'))
  _refused('no list of labels', pets, image_size=8, labels=str(tmp_path / 'bad.json'))
  (tmp_path / 'dates.json').write_text(json.dumps(dict.fromkeys(Folder(pets, 8).files, 20261123)))
  _refused('the label 20261123', pets, image_size=8, labels=str(tmp_path / 'dates.json'))


def test_a_size_that_only_shows_when_read_is_refused_too(tmp_path):
  """Only some headers are looked at beforehand: a million files would take minutes."""
  for i in range(200):
    size = (9, 10) if i == 100 else (9, 9)
    _write(tmp_path / 'same', f'{i:03d}.png', Image.fromarray(np.zeros((*size, 3), np.uint8)))
  source = Folder(tmp_path / 'same', crop=None, labels=None)
  with pytest.raises(UsageError, match='100.png is 9 x 10'):
    list(loading.in_order(source, batch_size=32))


def test_only_images_formats_are_opened(tmp_path):
  """A file is what it is, not what its name says: Pillow's rarer readers stay shut."""
  file = io.BytesIO()
  Image.fromarray(_photo(0, 9, 9)).save(file, 'PPM')
  (tmp_path / 'a.png').write_bytes(file.getvalue())
  with pytest.raises(UnreadableImage):
    Folder(tmp_path, image_size=8, labels=None)[0]


def test_links_that_go_in_circles_list_every_image_once(pets):
  """Without a memory of folders, each image is listed 41 times, and then ELOOP ends it."""
  for link, target in (('cat/all', '..'), ('again', '.'), ('aaa', 'owl'), ('self.png', 'self.png')):
    (pets / link).symlink_to(target)
  (pets / 'owl' / 'a.png').symlink_to('x0.png')
  (pets / 'owl' / 'b.png').symlink_to('../cat/x1.png')
  files = Folder(pets, 8, labels=None).files
  assert len(files) == 9 + 1 and 'self.png' in files  # the broken link is for `read` to name
  assert all(name.startswith(('cat/x', 'dog/x', 'owl/x')) for name in files if name != 'self.png')


def test_what_links_lead_to_elsewhere_is_there_once(pets, tmp_path):
  """As folders of links into a store are, whose files' own names may say nothing."""
  store = tmp_path / 'linked' / '.store'
  store.mkdir(parents=True)
  (pets / 'cat' / 'x1.png').rename(store / '0123')
  for link in ('cat/two.png', 'cat/one.png'):
    (tmp_path / 'linked' / link).parent.mkdir(exist_ok=True)
    (tmp_path / 'linked' / link).symlink_to(store / '0123')
  (tmp_path / 'linked' / 'dogs').symlink_to(pets / 'dog')
  (tmp_path / 'linked' / 'again').symlink_to(pets / 'dog')
  source = Folder(tmp_path / 'linked', image_size=8)
  assert source.files == ['again/x2.png', 'again/x5.png', 'again/x8.png', 'cat/one.png']
  assert len([source[i] for i in range(4)]) == 4


@pytest.mark.timeout(20)
def test_pipes_and_sockets_are_passed_over(pets, monkeypatch, caplog):
  """A pipe called x.png that nobody writes to would be read for ever."""
  monkeypatch.chdir(pets)  # a socket's address is short
  os.mkfifo('cat/pipe.png')
  os.mkfifo('cat/pipe.txt')
  (pets / 'cat' / 'zero.png').symlink_to('/dev/zero')
  with socket.socket(socket.AF_UNIX) as listening:
    listening.bind('cat/socket.png')
    source = Folder(pets, image_size=8)
  assert len(source) == 9 and caplog.text.count('passed over') == 1
  (pets / 'cat' / 'x1.png').unlink()
  os.mkfifo('cat/x1.png')
  with pytest.raises(UnreadableImage, match='x1.png: it is no regular file'):
    source[source.files.index('cat/x1.png')]


def test_a_sub_folder_that_cannot_be_listed_is_named(pets, monkeypatch):
  """Its images would be missing without a word."""
  scandir = os.scandir
  def guarded(path):
    if str(path).rstrip('/').endswith(('cat', 'lost+found')):
      raise PermissionError(13, 'Permission denied')
    return scandir(path)
  (pets / 'lost+found').mkdir()
  monkeypatch.setattr(os, 'scandir', guarded)
  _refused('cat.* cannot be listed .Permission denied.: make it readable', pets, image_size=8)


def test_hidden_folders_are_the_systems(pets, tmp_path):
  _write(pets, '.trash/x.png', Image.fromarray(_photo(0, 9, 9)))
  assert len(Folder(pets, 8)) == len(Folder(_zipped(pets, tmp_path / 'pets.zip'), 8)) == 9


def test_names_need_not_be_utf_8_and_links_may_lead_nowhere(pets):
  image = (pets / 'cat' / 'x1.png').read_bytes()
  with open(os.fsencode(pets / 'cat') + b'/\xff.png', 'wb') as file:
    file.write(image)
  (pets / 'cat' / 'gone.png').symlink_to('nowhere')
  source = Folder(pets, image_size=8)
  before = source.fingerprint()
  assert source[source.files.index(os.fsdecode(b'cat/\xff.png'))]['image'].shape == (8, 8, 3)
  with pytest.raises(UnreadableImage, match='gone.png'):
    source[source.files.index('cat/gone.png')]
  (pets / 'cat' / 'gone.png').unlink()
  (pets / 'cat' / 'gone.png').write_bytes(image)
  assert Folder(pets, image_size=8).fingerprint() != before
