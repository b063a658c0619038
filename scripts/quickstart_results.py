"""Prints what scripts/quickstart.sh has measured, from the JSON files in its run folder.

    python scripts/quickstart_results.py runs/quickstart
"""

import json
import pathlib
import sys

PRETRAINING = {
    "masked_lm_accuracy": "generator: masked pieces guessed right",
    "disc_accuracy": "discriminator: pieces judged right",
    "disc_recall": "discriminator: replaced pieces found",
    "disc_auc": "discriminator: area under the ROC curve",
}


def rows(folder: pathlib.Path) -> list[tuple[str, float]]:
    """(what was measured, value) of each step; shares and scores in percent."""
    pretraining = json.loads((folder / "models" / "quickstart" / "results" / "unsup_results.json").read_text(encoding="utf-8"))
    found = [(f"{label} (held-out text)", 100 * pretraining[name]) for name, label in PRETRAINING.items()]
    for start in ("pre-trained", "random"):
        for path in sorted((folder / "results" / start).glob("*/results.json")):
            summary = json.loads(path.read_text(encoding="utf-8"))["summary"]
            found += [
                (f"{task} {split} {metric}, {start} weights", values["mean"])
                for task, splits in summary.items()
                for split, metrics in splits.items()
                for metric, values in metrics.items()
                if metric != "loss"
            ]
    return found


if __name__ == "__main__":
    for label, value in rows(pathlib.Path(sys.argv[1])):
        print(f"{label:<64}{value:>8.2f} %")
