import pytest

from tests.evaluate.made import Oracle, Scene, write_scenes


@pytest.fixture(scope="session")
def scenes():
    return [Scene(seed) for seed in range(12)]


@pytest.fixture(scope="session")
def written(tmp_path_factory, scenes):
    """A data set on disk that no test may change."""
    folder = tmp_path_factory.mktemp("data")
    write_scenes(folder / "set", scenes)
    return folder / "set"


@pytest.fixture
def oracle(scenes):
    return Oracle(scenes)


@pytest.fixture
def odd(tmp_path):
    """Three scenes on disk, for a test to spoil."""
    scenes = [Scene(seed) for seed in (100, 101, 102)]
    write_scenes(tmp_path / "odd", scenes)
    return tmp_path / "odd", Oracle(scenes)
