"""A user's code: functions that take their time, and calls of them. It knows of no other machine.

with_loky.py and with_ray.py are the same code after its user has changed it. What the lines of the three differ by is
counted, so they differ by nothing else.
"""

import functools
import json

import numpy as np


def empty():
    pass


def loop(rounds):
    total = 0
    for number in range(rounds):
        total += number * number % 7
    return total


@functools.cache
def document():
    """Its JSON is a mebibyte long."""
    return [{"number": number, "name": f"name {number}", "parts": [number / 7, None, True]} for number in range(13_093)]


@functools.cache
def matrix(*shape):
    return np.random.default_rng(1).standard_normal(shape)


@functools.cache
def labels():
    return matrix(20_000, 20)[:, :5].sum(axis=1) > 0


@functools.cache
def model():
    import torch

    torch.manual_seed(1)
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    return torch.nn.Sequential(linear(1024, 2048), relu(), linear(2048, 2048), relu(), linear(2048, 10)).requires_grad_(False)


@functools.cache
def batch():
    import torch

    return torch.from_numpy(matrix(256, 1024).astype("float32"))


def call_empty():
    return empty()


def call_dumps():
    return json.dumps(document())


def call_loop():
    return loop(1_250_000)


def call_norm():
    return np.linalg.norm(matrix(100, 100))


def call_svd():
    return np.linalg.svd(matrix(1000, 1000))


def call_forest():
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_jobs=1, random_state=0)
    forest.fit(matrix(20_000, 20), labels())
    return forest.feature_importances_


def call_forward():
    return model()(batch()).numpy()
