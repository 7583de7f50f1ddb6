"""Compiled programs come from a folder that nobody else can write, or from none."""

import os
import time

import jax
import pytest

from cr_jax.experiment import run
from cr_jax.host.inside import Inside, draft_name
from cr_jax.parallel import compiled


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's own cache, below folders that only this user can write."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cr-jax" / "programs"


def test_the_folder_is_for_this_user_alone_whatever_the_umask(cache):
    before = os.umask(0)
    try:
        assert compiled.folder() == (str(cache), "")
        assert cache.stat().st_mode & 0o777 == 0o700
        (cache / "a-cache").write_bytes(
            b"program"
        )  # as JAX writes it: others may, but cannot enter
        assert compiled.folder() == (str(cache), "")
    finally:
        os.umask(before)


def refused(cache, path):
    place, reason = compiled.folder()
    return place == "" and str(path) in reason and "delete" in reason and "\n" not in reason


def test_a_folder_that_others_can_write_is_not_used(cache):
    cache.mkdir(parents=True)
    for place, mode in ((cache, 0o777), (cache, 0o1777), (cache.parent, 0o777)):
        usual = place.stat().st_mode
        place.chmod(mode)
        assert refused(cache, place), (place, mode)
        place.chmod(usual)
        assert compiled.folder()[0]
    cache.parent.chmod(0o1777)  # as /tmp: what is ours there cannot be renamed by others
    assert compiled.folder()[0]


def test_a_program_that_others_own_or_can_write_is_not_run(cache, monkeypatch):
    cache.mkdir(parents=True, mode=0o755)
    program = cache / "a-cache"
    program.write_bytes(b"x")
    program.chmod(0o644)
    assert compiled.folder()[0]
    program.chmod(0o646)
    assert refused(cache, program)
    program.unlink()
    program.symlink_to("/etc/hostname")
    assert refused(cache, program)
    program.unlink()
    program.write_bytes(b"x")
    monkeypatch.setattr(compiled, "_ours", lambda found: found.st_size != 1)
    assert refused(cache, program)


def test_a_group_of_the_users_own_name_is_the_user(monkeypatch, cache):
    cache.mkdir(parents=True)
    found = cache.stat()
    group = lambda name, members: compiled.grp.struct_group((name, "x", 12345, members))
    user = compiled.pwd.struct_passwd(("ann", "x", 12345, 12345, "", "/", ""))
    monkeypatch.setattr(compiled.pwd, "getpwuid", lambda uid: user)
    written = os.stat_result((0o40775, *found[1:5], 12345, *found[6:]))
    for name, members, others in (("ann", [], False), ("ann", ["bob"], True), ("staff", [], True)):
        asked = group(name, members)
        monkeypatch.setattr(compiled.grp, "getgrgid", lambda gid, g=asked: g)
        assert compiled._open_to_others(written) is others


def test_old_programs_and_what_a_kill_left_are_swept(cache):
    cache.mkdir(parents=True, mode=0o700)
    for name, age in (("old-cache", compiled.KEPT + 60), ("new-cache", 60)):
        (cache / name).write_bytes(b"")
        os.utime(cache / name, (time.time() - age,) * 2)
    assert compiled.folder()[0] and os.listdir(cache) == ["new-cache"]


def test_what_was_set_stays_and_why_nothing_is_kept_is_said(cache, monkeypatch):
    own = jax.config.jax_compilation_cache_dir
    assert compiled.keep() == "" and jax.config.jax_compilation_cache_dir == own
    assert not cache.exists()
    jax.config.update("jax_compilation_cache_dir", None)
    said = []
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    run._keep_compiled(said.append)
    assert len(said) == 1 and "not kept" in said[0] and jax.config.jax_compilation_cache_dir is None
    cache.chmod(0o700)
    run._keep_compiled(said.append)
    assert len(said) == 1 and jax.config.jax_compilation_cache_dir == str(cache)


def test_xla_puts_no_folder_of_its_own_among_the_programs(cache):
    jax.config.update("jax_persistent_cache_enable_xla_caches", "all")
    compiled.keep()
    assert jax.config.jax_persistent_cache_enable_xla_caches == "none"
    (cache / "autotune").mkdir(parents=True)
    cache.chmod(0o700)
    place, reason = compiled.folder()
    assert not place and "autotune is no file" in reason


def test_drafts_of_killed_processes_are_swept_and_nothing_else(tmp_path):
    with Inside.at(tmp_path) as place:
        kept = ["report.html", ".hidden", ".report.html.123", ".lock"]
        for name in (*kept, draft_name("report.html"), draft_name("config.json")):
            (tmp_path / name).write_text("x")
        (tmp_path / draft_name("folder")).mkdir()
        place.sweep()
        left = sorted(os.listdir(tmp_path))
    assert [name for name in left if not name.startswith(".folder.")] == sorted(kept)
    assert len(left) == len(kept) + 1
