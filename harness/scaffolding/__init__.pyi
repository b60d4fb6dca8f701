from .file_texts import Scaffold as Scaffold
from .file_texts import scaffold as scaffold
from .model_file import LayerFacts as LayerFacts
from .model_file import ModelFacts as ModelFacts
from .model_file import inspect_model_file as inspect_model_file
