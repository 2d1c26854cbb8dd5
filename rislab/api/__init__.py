"""The Python interface: models, answers, scores and results of tables. `rislab` exports these names; no others are public."""

from rislab.api.answers import Answer, Answers
from rislab.api.loading import load
from rislab.api.model import Model
from rislab.api.scored import Scored, score
from rislab.api.table_results import TableResults, results
from rislab.errors import RislabError

__all__ = ["Answer", "Answers", "Model", "RislabError", "Scored", "TableResults", "load", "results", "score"]
