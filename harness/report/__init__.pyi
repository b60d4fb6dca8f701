from .comparison_page import write_comparison as write_comparison
from .figure_bars import draw_units as draw_units
from .figure_heatmap import heat_maps as heat_maps
from .layer_page import picture as picture
from .layer_page import write_diagnosis_report as write_diagnosis_report
from .write import write_report as write_report
