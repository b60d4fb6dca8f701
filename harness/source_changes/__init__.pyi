from .source_patch import change_code as change_code
from .source_patch import source_diff as source_diff
