from .datasets import DATASETS as DATASETS
from .datasets import load as load
from .readers import read_array as read_array
from .rows import Rows as Rows
from .rows import Split as Split
from .split import split_of as split_of
