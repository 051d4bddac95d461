"""A random forest that learns which side of a curve points lie on, and says it of new ones."""

import hashlib

import numpy as np
from sklearn.ensemble import RandomForestClassifier


def main():
    generator = np.random.default_rng(7)
    print("READY", flush=True)
    for ntrees in (5, 10):
        points = generator.random((1500, 6))
        sides = (points[:, 0] ** 2 + points[:, 1] > 0.8).astype(int)
        model = RandomForestClassifier(ntrees, random_state=ntrees).fit(points[:1000], sides[:1000])
        told = model.predict(points[1000:])
        accuracy = float(np.mean(told == sides[1000:]))
        assert accuracy > 0.9
        likely = model.predict_proba(points[1000:])
        assert np.array_equal(model.classes_[likely.argmax(axis=1)], told)
        print(ntrees, accuracy, hashlib.sha256(likely.tobytes()).hexdigest()[:16], model.feature_importances_.tolist(), flush=True)
    print("EXIT-SUCCESS", flush=True)


main()
