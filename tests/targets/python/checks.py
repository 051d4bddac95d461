"""scikit-learn's own checks of two estimators, whose results are printed: checks.py [NAME...]."""

import sys
import warnings

from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

ESTIMATORS = {
    "LinearRegression": LinearRegression(),
    "KNeighborsClassifier": KNeighborsClassifier(),
    "DecisionTreeClassifier": DecisionTreeClassifier(random_state=1),
}


def main():
    warnings.simplefilter("ignore")
    print("READY", flush=True)
    for name in sys.argv[1:] or ESTIMATORS:
        for result in check_estimator(ESTIMATORS[name], on_fail=None, on_skip=None):
            print(name, result["check_name"], result["status"], flush=True)
            assert result["status"] != "failed", result["exception"]
    print("EXIT-SUCCESS", flush=True)


main()
