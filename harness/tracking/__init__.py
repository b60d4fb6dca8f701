"""MLflow runs made from the results: one run per member, under one parent run per experiment."""

from harness.tracking.address import is_server as is_server
from harness.tracking.address import mlflow_address as mlflow_address
from harness.tracking.context import RunContext as RunContext
from harness.tracking.context import run_context as run_context
from harness.tracking.member_rows import member_metrics as member_metrics
from harness.tracking.member_rows import member_tags as member_tags
from harness.tracking.sqlite_store import experiment_id as experiment_id
from harness.tracking.sqlite_store import experiment_names as experiment_names
from harness.tracking.sqlite_store import local_store as local_store
from harness.tracking.sqlite_store import move_paths as move_paths
from harness.tracking.sqlite_store import store_uri as store_uri
from harness.tracking.sqlite_store import stored_views as stored_views
from harness.tracking.tracker import Tracker as Tracker
from harness.tracking.tracker import create_store as create_store
from harness.tracking.tracker import has_experiment as has_experiment
from harness.tracking.tracker import stored_experiments as stored_experiments
