from .pages import RulePage as RulePage
from .pages import explain as explain
from .pages import names as names
