"""Who may do what: the lists of the guard, and the engine's own roles, limits and server settings as XML.

Two fences stand behind one another. chDB runs everything as its one user, but roles and grants out of a `users.xml`
hold (measured on 26.9), so every connection takes one role and keeps it. What no grant covers there, the guard refuses:
the function `file` reads any path, `INTO OUTFILE` writes any path, `KILL QUERY`, `SYSTEM STOP MERGES` and `SET ROLE`
need no privilege at all.
"""

import enum
import re
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from deploy.store.config import DATABASE, MIB, StoreConfig


class Role(enum.Enum):
    """Whom a request speaks for."""

    VISITOR = "visitor"
    """Anybody on this machine: reads."""
    SERVICE = "service"
    """Who knows the secret: changes tables of the database and their rows."""


ENGINES: Final = frozenset(
    {
        *("MergeTree", "SummingMergeTree", "AggregatingMergeTree", "ReplacingMergeTree", "CollapsingMergeTree"),
        *("VersionedCollapsingMergeTree", "CoalescingMergeTree", "Memory", "Null"),
    }
)
"""Table engines that a service may use (views are statements of their own)."""

TABLE_FUNCTIONS: Final = {
    Role.VISITOR: frozenset({"numbers", "numbers_mt", "zeros", "generateseries", "generate_series", "values", "view"}),
    Role.SERVICE: frozenset(
        {
            *("numbers", "numbers_mt", "zeros", "generateseries", "generate_series", "values", "view"),
            *("merge", "null", "generaterandom", "format", "mergetreeindex", "mergetreeprojection"),
        }
    ),
}
"""Table functions by role, in lower case; every other one is refused, known to us or not."""

FORBIDDEN_NAMES: Final = frozenset(
    {
        # Reads a file. As a bare name too: `* APPLY(file)` and `arrayMap(file, …)` call it without a bracket after it,
        # and EXPLAIN AST shows the first not at all.
        "file",
        *("filesystemavailable", "filesystemcapacity", "filesystemunreserved"),
        *("catboostevaluate", "evalmlmethod", "modelevaluate", "reversednsquery"),
        *("addresstoline", "addresstolinewithinlines", "addresstosymbol", "demangle", "logtrace"),
        *("getserversetting", "showcertificate", "generateserialid", "zookeepersessionuptime", "getmacro"),
        # Language models over the network.
        *("aiclassify", "aiembed", "aiextract", "aifilter", "aigenerate", "airedact", "aisimilarity", "aitranslate"),
    }
)
"""Functions that nobody may name, in lower case; so no column can have one of these names bare, only after a dot."""

FORBIDDEN_CALLS: Final = frozenset(
    {
        *("url", "urlcluster", "filecluster", "filesystem", "s3", "s3cluster", "gcs", "cosn", "oss", "hdfs"),
        *("hdfscluster",),
        *("azureblobstorage", "azureblobstoragecluster", "iceberg", "deltalake", "deltalakelocal", "iceberglocal"),
        *("hudi", "paimon", "paimonlocal", "remote", "remotesecure", "cluster", "clusterallreplicas"),
        *("mysql", "postgresql", "sqlite", "mongodb", "redis", "jdbc", "odbc", "bigquery", "ytsaurus", "arrowflight"),
        *("executable", "python", "eval", "loop", "dictionary", "input", "viewexplain", "fuzzquery"),
        *("fuzzjson", "arrowstream"),
        *("disk",),  # `SETTINGS disk = disk(type = …, path = …)` puts a table anywhere
    }
)
"""Names that must not stand before an opening bracket. The allow-list above is stricter; this one needs no engine."""

VISITOR_FORBIDDEN_NAMES: Final = frozenset({"sleep", "sleepeachrow"})
"""Functions that only hold a place."""

SYSTEM_TABLES: Final = frozenset(
    {
        *("one", "numbers", "numbers_mt", "zeros", "zeros_mt", "databases", "tables", "columns", "parts"),
        *("parts_columns",),
        *("projection_parts", "projection_parts_columns", "projections", "data_skipping_indices", "constraints"),
        *("detached_parts", "mutations", "merges", "functions", "table_functions", "table_engines", "database_engines"),
        *("data_type_families", "formats", "settings", "merge_tree_settings", "keywords", "time_zones", "collations"),
        *("aggregate_function_combinators", "build_options", "contributors", "licenses", "codecs", "macros"),
        *("clusters",),
        *("metrics", "events", "asynchronous_metrics", "current_roles", "enabled_roles", "dictionaries"),
        *("settings_changes",),
        *("completions", "documentation", "view_refreshes", "statements"),
    }
)
"""What a visitor may read of `system`. Not among them: others' queries, disks and paths, the server's settings."""

# What a client may change for the shape of its own answer; limits are not among them.
_VISITOR_SETTINGS: Final = re.compile(
    r"output_format_\w+|format_(csv|tsv|json|display|custom_\w+|binary\w*|pretty)\w*|date_time_\w+|session_timezone"
    r"|extremes|enable_extended_results_for_datetime_functions|join_use_nulls|union_default_mode|transform_null_in"
    r"|aggregate_functions_null_for_empty|cast_keep_nullable|prefer_column_name_to_alias|count_distinct_implementation"
    r"|cast_string_to_dynamic_use_inference|group_by_use_nulls|totals_mode|final|limit|offset|group_by_overflow_mode"
    r"|optimize_use_projections|force_optimize_projection|input_format_\w*null\w*|low_cardinality_allow_in_native_format"
)
# Settings that name files, addresses or other parsers, or that carry SQL in a string.
_FORBIDDEN_SETTINGS: Final = re.compile(
    r"dialect|schema|template|path|url|python|introspection|eval|file|filter|profile|^disk$|storage_policy|table_disk"
    r"|script|^log_comment$|^database$|^param_|s3|hdfs|azure|iceberg|kafka|workload|implicit_select|^ai_"
)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def may_set(role: Role, setting: str) -> bool:
    """Tell whether a client of this role may change this setting, in the URL or in a SETTINGS clause."""
    if not _NAME.fullmatch(setting) or _FORBIDDEN_SETTINGS.search(setting.lower()):
        return False
    return role is Role.SERVICE or _VISITOR_SETTINGS.fullmatch(setting) is not None


def limits(config: StoreConfig, role: Role) -> dict[str, str]:
    """Give the settings that each query of this role begins with; a visitor cannot change them."""
    if role is Role.SERVICE:
        # An insert stays one block up to 1,000,000 rows and 256 MB, whatever its wire blocks are (EXACTLY_ONCE.md, 2).
        return {
            "async_insert": "0",
            "min_insert_block_size_rows": "1048449",
            "min_insert_block_size_bytes": str(1024 * MIB),
        }
    return {
        "max_execution_time": str(config.store_visitor_max_seconds),
        "timeout_before_checking_execution_speed": "0",
        "max_memory_usage": str(config.store_visitor_max_memory),
        "max_result_bytes": str(config.store_visitor_max_result),
        "result_overflow_mode": "throw",
    }


_SERVICE_RIGHTS: Final = (
    *("SHOW", "SELECT", "INSERT", "CREATE DATABASE", "CREATE TABLE", "CREATE VIEW", "DROP TABLE", "DROP VIEW"),
    *("TRUNCATE", "OPTIMIZE", "CHECK", "ALTER UPDATE", "ALTER DELETE", "ALTER COLUMN", "ALTER MODIFY COMMENT"),
    *("ALTER ORDER BY", "ALTER SAMPLE BY", "ALTER INDEX", "ALTER STATISTICS", "ALTER PROJECTION", "ALTER CONSTRAINT"),
    *("ALTER TTL", "ALTER MATERIALIZE TTL", "ALTER SETTINGS", "ALTER MOVE PARTITION", "ALTER VIEW"),
)
_SERVICE_GRANTS: Final = (
    f"{', '.join(_SERVICE_RIGHTS)} ON {DATABASE}.*",
    "SELECT ON system.*",
    *(f"TABLE ENGINE ON {engine}" for engine in sorted(ENGINES)),
)
_VISITOR_GRANTS: Final = (f"SELECT, SHOW DATABASES, SHOW TABLES, SHOW COLUMNS ON {DATABASE}.*",)


def users_xml(config: StoreConfig) -> str:
    """Give the engine's users, roles and profiles: no source, no dictionary, no function, no access management."""
    held = "".join(f"<{name}><const/></{name}>" for name in (*limits(config, Role.VISITOR), "readonly", "max_threads"))
    return f"""<clickhouse>
  <profiles>
    <default>
      <allow_python_table_function>0</allow_python_table_function>
      <allow_introspection_functions>0</allow_introspection_functions>
      <implicit_select>0</implicit_select>
    </default>
    <visitor><constraints>{held}</constraints></visitor>
  </profiles>
  <quotas><default/></quotas>
  <roles>
    <visitor><grants>{_grants(_VISITOR_GRANTS)}</grants></visitor>
    <service><grants>{_grants(_SERVICE_GRANTS)}</grants></service>
  </roles>
  <users>
    <default>
      <password/>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants><query>GRANT visitor</query><query>GRANT service</query></grants>
    </default>
  </users>
</clickhouse>
"""


def config_xml(config: StoreConfig, users: Path, engine: Path) -> str:
    """Give the engine's server settings; what chDB's defaults do differently is said beside each."""
    folders = "".join(
        f"<{name}>{escape(str(engine / folder))}/</{name}>"
        for name, folder in (  # by default below /var/lib/clickhouse; these stay empty
            ("user_files_path", "user_files"),
            ("user_scripts_path", "user_scripts"),
            ("format_schema_path", "format_schemas"),
            ("tmp_path", "tmp"),
        )
    )
    return f"""<clickhouse>
  <user_directories><users_xml><path>{escape(str(users))}</path></users_xml></user_directories>
  <timezone>UTC</timezone>
  <logger><level>none</level></logger>
  <max_server_memory_usage>{config.store_max_memory}</max_server_memory_usage>
  <mark_cache_size>{256 * MIB}</mark_cache_size>
  <index_mark_cache_size>{64 * MIB}</index_mark_cache_size>
  <compiled_expression_cache_size>{32 * MIB}</compiled_expression_cache_size>
  <asynchronous_metrics_update_period_s>60</asynchronous_metrics_update_period_s>
  <max_thread_pool_size>1000</max_thread_pool_size>
  <max_thread_pool_free_size>16</max_thread_pool_free_size>
  {folders}
</clickhouse>
"""


def _grants(grants: tuple[str, ...]) -> str:
    return "".join(f"<query>GRANT {grant}</query>" for grant in grants)
