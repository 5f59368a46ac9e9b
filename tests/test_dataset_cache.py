"""core.datasets.cache: killed, damaged, full, shared and too small."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets import DecodedCache, make_key
from core.datasets.cache import _RECORDS, _SQUARES
from core.errors import DatasetError, RadiographError

SIZE, COUNT = 8, 30
EACH = SIZE * SIZE
ROOM = 2 * EACH * COUNT + 5 * COUNT + 1024


def expected(index):
    square = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    return square, None if index % 3 == 0 else (square > 200).astype(np.uint8) * 255


class Loader:
    """Decodes, counts, and fails where it is told to."""

    def __init__(self, broken=()):
        self.broken, self.asked = set(broken), []

    def __call__(self, index):
        self.asked.append(index)
        if index in self.broken:
            raise RadiographError("The file is empty; expected a film.")
        return expected(index)


def check(cache, indices=range(COUNT)):
    for index in indices:
        square, mask = cache.square(index)
        assert np.array_equal(square, expected(index)[0])
        assert (mask is None) == (expected(index)[1] is None)
        assert mask is None or np.array_equal(mask, expected(index)[1])


def taken(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def open_cache(folder, limit=ROOM, key="ab12", count=COUNT, masks=True):
    return DecodedCache(folder, count, SIZE, masks, limit, key)


@pytest.mark.parametrize("on_disk", [True, False])
def test_films_are_decoded_once(tmp_path, on_disk):
    load, told = Loader(), []
    cache = open_cache(tmp_path if on_disk else None)
    assert cache.fill(load, lambda done, of: told.append((done, of))) == {}
    assert sorted(load.asked) == list(range(COUNT))
    assert told == [(i + 1, COUNT) for i in range(COUNT)]
    check(cache)
    assert cache.fill(load) == {}
    assert (len(load.asked), len(cache)) == (COUNT, COUNT)
    square, mask = cache.square(1)
    for array in (square, mask):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    with pytest.raises(IndexError):
        cache.square(COUNT)


def test_a_second_process_finds_what_the_first_kept(tmp_path):
    open_cache(tmp_path).fill(Loader())
    again, load = open_cache(tmp_path), Loader()
    check(again)  # before anything is filled
    assert again.fill(load) == {}
    assert load.asked == []


def test_without_masks_none_are_kept(tmp_path):
    cache = open_cache(tmp_path, masks=False)
    cache.fill(Loader())
    assert all(cache.square(i)[1] is None for i in range(COUNT))
    assert np.array_equal(cache.square(4)[0], expected(4)[0])


def test_killed_in_the_middle_it_goes_on_and_serves_nothing_half_written(tmp_path):
    script = f"""
import os, sys, time
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
from core.datasets import cache
from test_dataset_cache import Loader, open_cache, expected
cache._FLUSH_FILMS = 4
load = Loader()
cached = open_cache({str(tmp_path)!r})
def dying(index):
    if index == 17:
        while (cached._records["state"] > 0).sum() < 16:
            time.sleep(0.01)
        cached._squares[17, :4] = expected(17)[0][:4]
        os._exit(9)
    return load(index)
cached.fill(dying, workers=1)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    cache, load = open_cache(tmp_path), Loader()
    assert cache.fill(load) == {}
    assert sorted(load.asked) == list(range(16, COUNT))  # what was flushed is not decoded again
    check(cache)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8), st.booleans())
def test_damaged_files_are_seen_and_mended(tmp_path_factory, changes, in_records):
    folder = tmp_path_factory.mktemp("cache")
    open_cache(folder).fill(Loader())
    file = folder / "ab12" / (_RECORDS if in_records else _SQUARES)
    content = bytearray(file.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    file.write_bytes(content)
    cache = open_cache(folder)
    cache._load = expected  # as if another thread were filling
    check(cache)
    assert open_cache(folder).fill(Loader()) == {}
    load = Loader()
    mended = open_cache(folder)
    mended.fill(load)
    assert load.asked == []
    check(mended)


@pytest.mark.parametrize("name", ["records.bin", "squares.u8", "masks.u8", "about.json"])
@pytest.mark.parametrize("how", ["gone", "short", "rubbish"])
def test_files_that_are_gone_or_cut_short(tmp_path, name, how):
    open_cache(tmp_path).fill(Loader())
    file = tmp_path / "ab12" / name
    if how == "gone":
        file.unlink()
    elif how == "short":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.write_bytes(os.urandom(file.stat().st_size))
    cache = open_cache(tmp_path)
    assert cache.fill(Loader()) == {}
    check(cache)


def test_unreadable_films_are_told_and_tried_again(tmp_path):
    cache, load = open_cache(tmp_path), Loader(broken={3, 20})
    sentence = "The file is empty; expected a film."
    assert cache.fill(load) == {3: sentence, 20: sentence}
    with pytest.raises(RadiographError):
        cache.square(3)
    load.asked.clear()
    load.broken = {3}
    assert cache.fill(load) == {3: sentence}
    assert load.asked == [3, 20]
    check(cache, [20])


def test_what_is_no_fault_of_a_film_is_not_hidden(tmp_path):
    cache = open_cache(tmp_path)
    with pytest.raises(ZeroDivisionError):
        cache.fill(lambda index: 1 // 0)
    with pytest.raises(ValueError, match="expected uint8"):
        cache.fill(lambda index: (np.zeros((SIZE, SIZE), np.float32), None))
    with pytest.raises(RuntimeError, match="after fill"):
        open_cache(tmp_path, key="cd34").square(0)
    with pytest.raises(ValueError, match="key"):
        open_cache(tmp_path, key="../Doe")


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("room", [0, EACH * 20, ROOM // 2, ROOM, ROOM * 9])
def test_the_limit_holds_and_the_rest_is_decoded_on_demand(tmp_path, room, on_disk):
    cache, load = open_cache(tmp_path if on_disk else None, limit=room), Loader(broken={29})
    assert list(cache.fill(load)) == [29]
    assert sorted(load.asked) == list(range(COUNT))
    assert taken(tmp_path) <= max(room, 5 * COUNT + 1024)
    assert cache.kept == min(COUNT, max(0, (room - 5 * COUNT - 1024) // (2 * EACH)))
    load.asked.clear()
    check(cache, range(29))
    assert load.asked == list(range(cache.kept, 29))
    load.asked.clear()
    cache.fill(load)
    assert load.asked == [29]  # the others are known to be readable


def test_another_limit_is_another_cache_and_the_open_one_lives_on(tmp_path):
    first = open_cache(tmp_path)
    first.fill(Loader())
    second = open_cache(tmp_path, limit=ROOM // 2)
    second.fill(Loader())
    check(first)
    check(second)
    assert taken(tmp_path) <= ROOM // 2


def test_old_caches_go_first_and_only_caches(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films/1.png").write_bytes(b"0" * ROOM * 9)
    (tmp_path / "films/squares.u8").write_bytes(b"0" * ROOM * 9)
    (tmp_path / "films/about.json").write_text('{"made_by": "someone"}')
    os.utime(tmp_path / "films/about.json", (0, 0))
    for number, key in enumerate(("old", "middle", "new")):
        open_cache(tmp_path, limit=4 * ROOM, key=key).fill(Loader())
        os.utime(tmp_path / key / "about.json", (number, number))
    (tmp_path / "old/notes.txt").write_text("mine")
    held = open_cache(tmp_path, limit=4 * ROOM, key="middle")
    os.utime(tmp_path / "middle/about.json", (1, 1))
    open_cache(tmp_path, limit=2 * ROOM, key="next")
    assert not (tmp_path / "old/squares.u8").exists()
    assert (tmp_path / "old/notes.txt").exists()
    assert {file.name for file in (tmp_path / "films").iterdir()} == {"1.png", "squares.u8", "about.json"}
    assert (tmp_path / "middle").exists() or os.name == "nt"
    assert not (tmp_path / "new").exists()  # the older one is in use
    check(held)


def test_no_more_caches_go_than_must(tmp_path):
    for number, key in enumerate(("b", "a", "c")):
        open_cache(tmp_path, limit=4 * ROOM, key=key)
        os.utime(tmp_path / key / "about.json", (number, number))
    open_cache(tmp_path, limit=3 * ROOM, key="d")
    assert {place.name for place in tmp_path.iterdir()} == {"a", "c", "d"}


def test_threads_read_while_others_fill(tmp_path):
    cache, wrong = open_cache(tmp_path), []
    other = open_cache(tmp_path)

    def slow(index):
        time.sleep(0.002)
        return expected(index)

    cache._load = other._load = expected

    def read(seed):
        for index in np.random.default_rng(seed).integers(0, COUNT, 200):
            if not np.array_equal(cache.square(int(index))[0], expected(int(index))[0]):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    threads += [threading.Thread(target=one.fill, args=(slow,)) for one in (cache, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    check(cache)
    check(other)
    assert taken(tmp_path) <= ROOM


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be written") as raised:
        open_cache(tmp_path / "file")
    assert str(tmp_path) not in str(raised.value)


def test_nothing_at_all(tmp_path):
    assert open_cache(tmp_path, count=0).fill(Loader()) == {}


def test_keys_tell_different_data_apart(tmp_path):
    files = [tmp_path / name for name in ("Jane Doe.png", "b.png")]
    for file in files:
        file.write_bytes(b"film")
        os.utime(file, (1, 1))
    key = make_key(files, SIZE, {"margin": 1.5, "whole": False})
    assert key == make_key(files, SIZE, {"whole": False, "margin": 1.5})
    assert set(key) <= set("0123456789abcdef")
    others = [make_key(files[::-1], SIZE, {"margin": 1.5, "whole": False}), make_key(files, SIZE, {"margin": 1.4})]
    others.append(make_key(files[:1], SIZE, {"margin": 1.5, "whole": False}))
    os.utime(files[0], (2, 2))
    others.append(make_key(files, SIZE, {"margin": 1.5, "whole": False}))
    os.utime(files[0], (1, 1))
    files[0].write_bytes(b"longer")
    os.utime(files[0], (1, 1))
    others.append(make_key(files, SIZE, {"margin": 1.5, "whole": False}))
    assert len({key, *others}) == 6
    with pytest.raises(DatasetError, match="not there now"):
        make_key([tmp_path / "gone.png"])
