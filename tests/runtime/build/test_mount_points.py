"""What was made only to mount on is taken away again, and nothing that lies elsewhere."""

from pathlib import Path

from swarmd.runtime.build.workshop import remove_mount_points


def test_targets_that_climb_stay_inside(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "cache/a").mkdir(parents=True)
    (upper / "kept").mkdir()
    (tmp_path / "victim").mkdir()
    (upper / "out").symlink_to(tmp_path)
    remove_mount_points(upper, ["/../victim", "/out/victim", "/x/../../victim", "/../cache/./a/", "/"])
    assert (tmp_path / "victim").is_dir()
    assert sorted(path.name for path in upper.iterdir()) == ["kept", "out"]
