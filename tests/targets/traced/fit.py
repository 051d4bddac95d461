"""Fits a classifier several times; prints its scores."""

import sys

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier

rng = np.random.default_rng(0)
X = rng.normal(size=(1500, 12))
y = (X[:, 0] * X[:, 1] > 0).astype(int)
for seed in range(int(sys.argv[1])):
    model = GradientBoostingClassifier(n_estimators=60, random_state=seed).fit(X, y)
    print(seed, round(model.score(X, y), 6))
