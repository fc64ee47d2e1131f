"""The tests' settings on another database: MODEL_DATABASE is JSON."""

import json
import os

from tests.settings import *  # noqa: F403

_settings = json.loads(os.environ["MODEL_DATABASE"])
if _settings["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()
DATABASES = {"default": _settings, "other": {**_settings, "TEST": {"NAME": "test_other"}}}
