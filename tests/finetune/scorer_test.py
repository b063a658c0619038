from finetune.scorer import Scorer


class CountingScorer(Scorer):
    main_metric = "count"

    def __init__(self):
        self._count = 0

    def update(self, results):
        self._count += 1

    def get_loss(self):
        return 0.5

    def _get_results(self):
        return [("count", float(self._count))]


def test_results_hold_the_loss_once_and_last():
    scorer = CountingScorer()
    scorer.update({})
    scorer.update({})
    assert scorer.get_results() == [("count", 2.0), ("loss", 0.5)]
    assert scorer.get_results("dev_") == [("dev_count", 2.0), ("dev_loss", 0.5)]
    assert scorer.results_str() == "count: 2.00 - loss: 0.50"
