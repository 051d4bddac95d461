"""The code of plain.py, its calls in a worker of Ray's."""

import functools
import json

import numpy as np
import ray


@ray.remote
def call(function, *arguments):
    return function(*arguments)


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
    return ray.get(call.remote(empty))


def call_dumps():
    return ray.get(call.remote(json.dumps, document()))


def call_loop():
    return ray.get(call.remote(loop, 1_250_000))


def call_norm():
    return ray.get(call.remote(np.linalg.norm, matrix(100, 100)))


def call_svd():
    return ray.get(call.remote(np.linalg.svd, matrix(1000, 1000)))


def call_forest():
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_jobs=1, random_state=0)
    forest = ray.get(call.remote(forest.fit, matrix(20_000, 20), labels()))
    return forest.feature_importances_


def call_forward():
    return ray.get(call.remote(model(), batch())).numpy()
