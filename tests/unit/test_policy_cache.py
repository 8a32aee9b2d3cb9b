# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiled policy is used where it is ours and fresh, and otherwise as if it were not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from virtwarden.errors import PolicyError
from virtwarden.paths import Paths
from virtwarden.policy import Mode, Policy, last_good, load
from virtwarden.policy import compile as compiling

ME = os.getuid()
REPOSITORY = Path(__file__).parents[2]
root_only = pytest.mark.skipif(ME != 0, reason="only root can give a file away")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    for name in ("etc", "etc/policy.d", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
    made = Paths(
        policy=tmp_path / "etc/policy.toml",
        policy_dir=tmp_path / "etc/policy.d",
        schema=tmp_path / "schema.json",
        run=tmp_path / "run",
    )
    made.schema.write_bytes((REPOSITORY / "policy/schema.json").read_bytes())
    write(made.policy, 'mode = "permissive"')
    return made


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def replace_by_its_like(paths: Paths) -> None:
    content = paths.policy.read_text()
    paths.policy.rename(paths.run / "former")
    write(paths.policy, content)


def settle() -> None:
    """Let so much time pass that a further change is sure to show."""
    time.sleep(0.025)


@pytest.fixture
def cached(paths: Paths) -> Paths:
    """Paths whose policy is compiled and kept."""
    settle()
    load(paths, ME, store=True)
    return paths


def compiles(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether `load` reads the policy files, rather than believe the cache."""
    called = []

    def spy(paths: Paths, owner: int = 0) -> Policy:
        called.append(owner)
        return original(paths, owner)

    original = compiling.compile_policy
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "compile_policy", spy)
        assert load(paths, ME, store=True).rules_for("a").mode is Mode.PERMISSIVE
    return bool(called)


def forge(paths: Paths, *steps: str | int, value: Any) -> None:
    """Set one value in the cache, which stays root's and well-formed otherwise."""
    document = json.loads(paths.policy_cache.read_text())
    node = document
    for step in steps[:-1]:
        node = node[step]
    node[steps[-1]] = value
    paths.policy_cache.write_text(json.dumps(document))


def test_a_second_load_believes_the_cache(cached: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not compiles(cached, monkeypatch)


def test_who_does_not_ask_for_it_stores_nothing(paths: Paths) -> None:
    load(paths, ME)
    assert not paths.policy_cache.exists()


def test_what_the_cache_gives_is_what_was_compiled(cached: Paths) -> None:
    assert load(cached, ME, store=True) == compiling.compile_policy(cached, ME)


@pytest.mark.process
def test_a_cache_hit_imports_neither_tomllib_nor_jsonschema(cached: Paths) -> None:
    script = (
        "import sys; from pathlib import Path; from virtwarden.paths import Paths\n"
        "from virtwarden.policy import load\n"
        "p = [Path(a) for a in sys.argv[1:]]\n"
        f"load(Paths(policy=p[0], policy_dir=p[1], schema=p[2], run=p[3]), {ME}, store=True)\n"
        "print([m for m in ('tomllib', 'jsonschema', 'lxml', 'subprocess') if m in sys.modules])"
    )
    places = map(str, (cached.policy, cached.policy_dir, cached.schema, cached.run))
    done = subprocess.run(
        [sys.executable, "-c", script, *places],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_cache_is_roots_alone_to_read_and_nothing_is_left_beside_it(cached: Paths) -> None:
    assert cached.policy_cache.stat().st_mode & 0o7777 == 0o600
    assert [path.name for path in cached.run.iterdir()] == ["policy.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: write(p.policy, 'mode  = "permissive"'),
        lambda p: os.utime(p.policy),
        lambda p: p.policy.chmod(0o644),
        lambda p: write(p.policy_dir / "a.toml", ""),
        lambda p: (p.policy_dir / "README").touch(),
        lambda p: os.utime(p.schema),
        replace_by_its_like,
        lambda p: os.utime(p.policy.parent),
    ],
)
def test_any_change_of_the_files_makes_the_cache_stale(
    cached: Paths, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    change(cached)
    assert compiles(cached, monkeypatch)


def test_an_edited_or_removed_drop_in_makes_the_cache_stale(paths: Paths) -> None:
    drop_in = paths.policy_dir / "a.toml"
    write(drop_in, 'mode = "disabled"')
    settle()
    assert load(paths, ME, store=True).rules_for("a").mode is Mode.DISABLED
    write(drop_in, 'mode = "enforcing"')
    settle()
    assert load(paths, ME, store=True).rules_for("a").mode is Mode.ENFORCING
    drop_in.unlink()
    assert load(paths, ME, store=True).rules_for("a").mode is Mode.PERMISSIVE


def test_a_policy_file_that_goes_leaves_the_defaults(cached: Paths) -> None:
    cached.policy.unlink()
    assert load(cached, ME, store=True).rules_for("a").where("mode") == "built-in default"


def test_an_edit_of_the_same_size_within_a_tick_of_the_clock_is_not_missed(paths: Paths) -> None:
    for _ in range(5):
        write(paths.policy, 'mode = "disabled"\n')
        assert load(paths, ME, store=True).rules_for("a").mode is Mode.DISABLED
        write(paths.policy, 'mode = "enforcing"')
        assert load(paths, ME, store=True).rules_for("a").mode is Mode.ENFORCING


def test_permissions_that_are_loosened_later_are_refused_all_the_same(cached: Paths) -> None:
    for path, mode in ((cached.policy, 0o666), (cached.policy_dir, 0o777)):
        path.chmod(mode)
        with pytest.raises(PolicyError, match="others than"):
            load(cached, ME, store=True)
        path.chmod(0o700)


def test_a_cache_of_another_version_is_stale(
    cached: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(cached, "version", value="0.0.0")
    assert compiles(cached, monkeypatch)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_cache_that_others_may_write_is_not_believed(
    cached: Paths, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    cached.policy_cache.chmod(mode)
    assert last_good(cached, ME) is None
    assert compiles(cached, monkeypatch)
    assert cached.policy_cache.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_cache_in_a_directory_that_others_may_write_is_neither_believed_nor_made(
    cached: Paths, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    cached.run.chmod(mode)
    assert last_good(cached, ME) is None
    assert compiles(cached, monkeypatch)
    cached.policy_cache.unlink()
    load(cached, ME, store=True)
    assert not cached.policy_cache.exists()


@root_only
@pytest.mark.parametrize("name", ["policy.json", "."])
def test_a_cache_of_anothers_is_not_believed(
    cached: Paths, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    os.chown(cached.run / name, 65534, 65534)
    assert last_good(cached, ME) is None
    assert compiles(cached, monkeypatch)


def test_a_cache_that_is_a_symlink_is_not_believed_but_replaced(
    cached: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = tmp_path / "mine.json"
    cached.policy_cache.rename(target)
    before = target.read_bytes()
    cached.policy_cache.symlink_to(target)
    assert last_good(cached, ME) is None
    assert compiles(cached, monkeypatch)
    assert target.read_bytes() == before
    assert not cached.policy_cache.is_symlink()


def test_a_fifo_or_directory_in_the_caches_place_neither_hangs_nor_crashes(
    cached: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.policy_cache.unlink()
    os.mkfifo(cached.policy_cache, 0o600)
    assert compiles(cached, monkeypatch)
    cached.policy_cache.unlink()
    cached.policy_cache.mkdir()
    assert compiles(cached, monkeypatch)
    assert [path.name for path in cached.run.iterdir()] == ["policy.json"]


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_cache_is_not_believed(
    cached: Paths, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    cached.policy_cache.write_bytes(cached.policy_cache.read_bytes()[:keep])
    assert last_good(cached, ME) is None
    assert compiles(cached, monkeypatch)


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "5", '"x"', "{}", "[" * 100_000, "\0", '{"format": 1}', '{"format": [1]}'],
    ids=lambda content: content[:16],
)
def test_a_cache_of_other_json_is_not_believed(
    cached: Paths, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    cached.policy_cache.write_text(content)
    assert last_good(cached, ME) is None
    assert compiles(cached, monkeypatch)


def test_a_cache_that_is_not_utf_8_is_not_believed(
    cached: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.policy_cache.write_bytes(b"\xff\xfe\x00")
    assert last_good(cached, ME) is None
    assert compiles(cached, monkeypatch)


HOST = ("policy", "host")


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        (("format",), 2),
        (("policy",), []),
        (("policy", "files"), 5),
        (("policy", "files"), [5]),
        (("policy", "entries"), {}),
        (("policy", "entries"), [["a"]]),
        (("policy", "entries"), [[5, {}]]),
        (("policy", "entries"), [["a", {"mode": ["maybe", "f", 1]}]]),
        (("policy", "entries"), [["a", {"unknown": ["x", "f", 1]}]]),
        (HOST, {}),
        (HOST, []),
        ((*HOST, "unknown"), ["x", "f", 1]),
        ((*HOST, "mode"), "permissive"),
        ((*HOST, "mode"), ["permissive"]),
        ((*HOST, "mode"), ["permissive", 5, 1]),
        ((*HOST, "mode"), ["permissive", "f", "1"]),
        ((*HOST, "mode"), ["permissive", "f", True]),
        ((*HOST, "mode", 0), "unheard-of"),
        ((*HOST, "mode", 0), 5),
        ((*HOST, "mode", 0), {}),
        ((*HOST, "mode", 0), None),
        ((*HOST, "managed", 0), "*"),
        ((*HOST, "managed", 0), [None]),
        ((*HOST, "console.listen", 0), 5),
        ((*HOST, "console.listen", 0), [5]),
        ((*HOST, "console.tls", 0), "deny"),
        ((*HOST, "network.backend", 0), ["auto"]),
        ((*HOST, "identity.user_prefix", 0), 1),
        ((*HOST, "identity.uid_range", 0), [1]),
        ((*HOST, "identity.uid_range", 0), [1, 2, 3]),
        ((*HOST, "identity.uid_range", 0), ["1", "2"]),
        ((*HOST, "identity.uid_range", 0), [0, 70000]),
        ((*HOST, "identity.uid_range", 0), [2, 1]),
        ((*HOST, "exceptions", 0), ["everything"]),
        ((*HOST, "exceptions", 0), [[]]),
    ],
)
def test_a_cache_of_the_right_key_and_wrong_types_is_not_believed(
    cached: Paths, monkeypatch: pytest.MonkeyPatch, steps: tuple[str | int, ...], value: Any
) -> None:
    forge(cached, *steps, value=value)
    assert last_good(cached, ME) is None
    assert compiles(cached, monkeypatch)


@pytest.mark.parametrize(
    ("name", "value"), [("key", 5), ("key", []), ("moment", "x"), ("moment", None), ("moment", 0)]
)
def test_a_cache_whose_key_is_not_one_is_stale(
    cached: Paths, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    forge(cached, name, value=value)
    assert compiles(cached, monkeypatch)


def test_the_last_good_policy_outlives_the_breaking_of_the_files(cached: Paths) -> None:
    write(cached.policy, "broken")
    with pytest.raises(PolicyError):
        load(cached, ME, store=True)
    former = last_good(cached, ME)
    assert former is not None
    assert former.rules_for("a").mode is Mode.PERMISSIVE


def test_without_a_cache_there_is_no_last_good_policy(paths: Paths) -> None:
    assert last_good(paths, ME) is None


def test_after_a_boot_the_first_load_makes_the_caches_directory(paths: Paths) -> None:
    paths.run.rmdir()
    load(paths, ME, store=True)
    assert paths.policy_cache.exists()
    assert paths.run.stat().st_mode & 0o077 == 0o011 & ~umask()


def umask() -> int:
    former = os.umask(0)
    os.umask(former)
    return former


def test_where_that_directory_cannot_be_made_the_policy_loads_all_the_same(paths: Paths) -> None:
    paths.run.rmdir()
    nowhere = replace(paths, run=paths.run / "missing" / "run")
    assert load(nowhere, ME, store=True).rules_for("a").mode is Mode.PERMISSIVE
    assert not nowhere.run.exists()


def test_where_run_is_full_the_policy_loads_and_no_half_file_stays(
    cached: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cached.policy_cache.read_bytes()
    write(cached.policy, 'mode = "disabled"')

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    assert load(cached, ME, store=True).rules_for("a").mode is Mode.DISABLED
    assert [path.name for path in cached.run.iterdir()] == ["policy.json"]
    assert cached.policy_cache.read_bytes() == before
