"""What tests of training runs share: a reporter that listens, and states read back."""

import torch


class Told:
    """A reporter that keeps what it hears."""

    def __init__(self, at=lambda progress: None):
        self.lines, self.steps, self.at = [], [], at

    def say(self, text):
        self.lines.append(text)

    def step(self, progress):
        self.steps.append(progress)
        self.at(progress)


def state(config, name="checkpoint-0000006.pt"):
    return torch.load(config.out / name, weights_only=True)


def same(first, second):
    assert first["step"] == second["step"]
    for key in ("model", "average"):
        for name, value in first[key].items():
            assert torch.equal(value, second[key][name]), name
