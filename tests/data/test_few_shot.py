import pickle
from dataclasses import replace

import numpy as np
import pytest
from layouts import cloud, cut, write_fold, write_folder, write_modelnet_hdf5, write_shapenet_part

from recon_fast.data.loading import DataProblems, load
from recon_fast.data.open import open_source
from recon_fast.data.readers.listed import few_shot_folds, read_fold
from recon_fast.errors import InputError
from recon_fast.tasks.fewshot import draw_episode

SMALL = {"num_points": 64, "max_points": 128}


@pytest.mark.parametrize("folder", ["3way_2shot", "3way2shot"])
def test_folds_on_disk(tmp_path, folder):
    for fold in (0, 1, 10):
        write_fold(tmp_path / folder / f"{fold}.pkl")
    assert list(few_shot_folds(tmp_path, 3, 2)) == [0, 1, 10]
    shapes = read_fold(tmp_path, 3, 2, 10, num_points=64)
    assert shapes.name == f"{folder} 10"
    assert shapes.class_names == ["7", "8", "9"]
    assert shapes.labels.tolist() == [0, 0, 1, 1, 2, 2, *np.repeat([0, 1, 2], 4)]
    assert shapes.held_out.tolist() == [False] * 6 + [True] * 12
    np.testing.assert_array_equal(shapes.cloud(3), cloud(101, 64, 6)[:, :3])
    with pytest.raises(InputError, match=r"3way_2shot/2\.pkl, got folds 0, 1, 10"):
        read_fold(tmp_path, 3, 2, 2)
    with pytest.raises(InputError, match="got none of this kind"):
        read_fold(tmp_path, 5, 2, 0)


def test_a_fold_is_a_source_and_a_folder_of_several_asks_which(tmp_path):
    path = write_fold(tmp_path / "3way_2shot" / "0.pkl")
    assert len(load(open_source(path), **SMALL)[0]) == 18
    assert open_source(tmp_path).name == open_source(path.parent).name == "3way_2shot 0"
    write_fold(path.with_name("1.pkl"))
    for place in (tmp_path, path.parent):
        with pytest.raises(InputError, match=r"choose one of .*, for instance .*3way_2shot/0\.pkl"):
            open_source(place)
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"must be files <w>way_<s>shot/<fold>\.pkl, got none in"):
        open_source(tmp_path)


CONTENTS = {
    "list": ([], 'must be {"train": [(cloud, label, class)], "test": ...}'),
    "rows": ({"train": 3, "test": []}, "train must be a list of (cloud, label, class), got int"),
    "pair": ({"train": [(cloud(), 0)], "test": []}, "row 0: must be (cloud, label, class)"),
    "cloud": ({"train": [([1.0], 0, 1)], "test": []}, "row 0: must be an array of points, got list"),
    "label": ({"train": [(cloud(), 3, 1)], "test": []}, "row 0: label must be below 3, got 3"),
    "name": ({"train": [(cloud(), 1, [])], "test": []}, "row 0: class must be one whole number, got list"),
    "class": ({"train": [(cloud(), 1, 5)], "test": [(cloud(), 1, 6)]}, "row 1: label 1 must be class 5"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_wrong_fold_is_a_problem(tmp_path, name):
    content, what = CONTENTS[name]
    path = write_fold(tmp_path / "3way_2shot" / "0.pkl")
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataProblems) as error:
        read_fold(tmp_path, 3, 2, 0, num_points=64)
    (problem,) = error.value.problems
    assert problem.file == path
    assert what in problem.what


def test_a_cut_fold(tmp_path):
    cut(write_fold(tmp_path / "0.pkl"))
    with pytest.raises(DataProblems) as error:
        load(open_source(tmp_path / "0.pkl"), **SMALL)
    assert "must be a whole pickle" in error.value.table


def labelled(tmp_path, held_out_fraction=0.4):
    source = open_source(
        write_folder(tmp_path, ("a", "b", "c", "d", "e"), per_class=20), held_out_fraction=held_out_fraction
    )
    return load(source, **SMALL)[0]


def test_an_episode_trains_on_training_shapes_and_tests_on_held_out_ones(tmp_path):
    shapes = labelled(tmp_path)
    episode = draw_episode(shapes, 3, 4, num_test=2)
    assert len(episode) == 3 * (4 + 2)
    assert episode.held_out.tolist() == [False] * 12 + [True] * 6
    assert episode.labels.tolist() == [*np.repeat([0, 1, 2], 4), *np.repeat([0, 1, 2], 2)]
    assert len(set(episode.keys)) == len(episode)
    for i, key in enumerate(episode.keys):
        row = shapes.keys.index(key)
        assert shapes.held_out[row] == episode.held_out[i]
        assert shapes.class_names[shapes.labels[row]] == episode.class_names[episode.labels[i]]
        np.testing.assert_array_equal(shapes.cloud(row), episode.cloud(i))


def test_an_episode_is_a_function_of_set_numbers_and_seed(tmp_path):
    shapes = labelled(tmp_path)
    keys = draw_episode(shapes, 3, 4, 1, seed=5, num_test=2).keys
    assert draw_episode(shapes.take(np.arange(100)[::-1]), 3, 4, 1, seed=5, num_test=2).keys == keys
    for fold, seed in ((1, 6), (2, 5), (0, 5)):
        assert draw_episode(shapes, 3, 4, fold, seed=seed, num_test=2).keys != keys


def test_a_set_that_holds_nothing_out_gives_both_sides(tmp_path):
    episode = draw_episode(labelled(tmp_path, 0), 5, 10, num_test=10)
    assert len(set(episode.keys)) == 100


def test_an_episode_that_cannot_be_drawn_says_why(tmp_path):
    shapes = labelled(tmp_path)
    with pytest.raises(InputError, match=r"5-way 20-shot episodes need 5 classes .*, got 0 in"):
        draw_episode(shapes, 5, 20)
    with pytest.raises(InputError, match="has no labels"):
        draw_episode(replace(shapes, labels=None), 5, 1)
    with pytest.raises(InputError, match="shot must be at least 1, got 0"):
        draw_episode(shapes, 5, 0)


def test_episodes_keep_parts(tmp_path):
    shapes = load(open_source(write_shapenet_part(tmp_path)), **SMALL)[0]
    episode = draw_episode(shapes, 2, 2, num_test=1)
    for i in range(len(episode)):
        parts = episode.parts[episode.offsets[i] : episode.offsets[i + 1]]
        assert set(parts.tolist()) == set(episode.class_parts[episode.labels[i]])


def test_hdf5_gives_episodes(tmp_path):
    shapes = load(open_source(write_modelnet_hdf5(tmp_path)), **SMALL)[0]
    assert sorted(draw_episode(shapes, 2, 3, num_test=2).class_names) == ["bed", "night_stand"]
