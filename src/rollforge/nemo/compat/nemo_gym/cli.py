"""Starting and stopping the servers of a configuration, for trainers."""

from __future__ import annotations

from rollforge.nemo.run_helper import GlobalConfigDictParserConfig as GlobalConfigDictParserConfig
from rollforge.nemo.run_helper import RunHelper as RunHelper
