from .pages import RulePage as RulePage
from .pages import names as names
from .pages import page as page
