import pytest
from matplotlib.figure import Figure

from finetune.search_report import SearchTrial, best_of, draw, table

TRIALS = [
    SearchTrial(1, {"learning_rate": 3e-5, "precision": None}, "complete", [60.0, 71.25, 70.0], 65.4),
    SearchTrial(2, {"learning_rate": 5e-5, "precision": "bfloat16"}, "pruned", [90.0, 40.0], 4000.0),
    SearchTrial(3, {"learning_rate": 7e-5, "precision": None}, "diverged", [], 3.0, "loss is nan at step 3"),
    SearchTrial(4, {"learning_rate": 3e-5, "precision": None}, "complete", [60.0, 71.25, 70.0], 0.0, repeats=1),
]
SPACE = {"learning_rate": [3e-5, 5e-5, 7e-5], "precision": [None, "bfloat16"], "use_tpu": [False]}


def test_the_table_has_a_line_for_each_trial():
    assert table(TRIALS, ["learning_rate", "precision"]) == [
        "trial  learning_rate  precision    dev     time  state",
        "    1          3e-05       null  71.25  0:01:05  complete",
        "    2          5e-05   bfloat16  90.00  1:06:40  pruned after 2 evaluations",
        "    3          7e-05       null      -  0:00:03  diverged",
        "    4          3e-05       null  71.25  0:00:00  complete, as trial 1",
    ]


def test_the_best_is_the_first_complete_trial_with_the_highest_score():
    assert best_of(TRIALS) is TRIALS[0] and best_of(TRIALS[1:3]) is None
    assert best_of([SearchTrial(1, {}, "complete", [-3.0], 1.0), SearchTrial(2, {}, "complete", [-2.0], 1.0)]).number == 2


@pytest.mark.parametrize("trials", [TRIALS, TRIALS[2:3]])
def test_the_picture_has_a_panel_for_each_setting_with_several_values(tmp_path, monkeypatch, trials):
    figures = []
    save = Figure.add_subplot
    monkeypatch.setattr(
        Figure, "add_subplot", lambda figure, *arguments, **keys: figures.append(figure) or save(figure, *arguments, **keys)
    )
    draw(trials, SPACE, "accuracy", str(tmp_path / "study.png"))
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    panels = figures[0].axes
    assert [panel.get_title() for panel in panels] == ["trials", "learning_rate", "precision"]
    assert [label.get_text() for label in panels[2].get_xticklabels()] == ["null", "bfloat16"]
    if trials is TRIALS:
        complete, stopped = panels[1].collections
        assert complete.get_offsets().tolist() == [[0, 71.25], [0, 71.25]] and stopped.get_offsets().tolist() == [[1, 90.0]]
        (best,) = panels[0].lines
        assert list(best.get_ydata()) == [71.25] * 4
