from .apply import apply_remedies as apply_remedies
from .apply import judged_target as judged_target
from .apply import matched_beta as matched_beta
from .apply import same_as_default as same_as_default
from .apply import why_not_applicable as why_not_applicable
from .not_applicable import RemedyNotApplicable as RemedyNotApplicable
