"""What a monitoring system reads of a server: the metrics of memcached_exporter, out of the same statistics.

The names, where each comes from, and which are read only where they are told, are those of memcached_exporter 0.16.0
(github.com/prometheus/memcached_exporter, pkg/exporter/exporter.go). It asks for `stats`, `stats slabs`, `stats items`
and `stats settings`, and is `up` only if every value that it finds is a number.
"""

import re
import socket

LIMIT_S = 20
COMMANDS = ("get", "delete", "incr", "decr", "cas", "touch")
LRUS = {"hot": "hot", "warm": "warm", "cold": "cold", "temp": "temporary"}

# Metric and statistic. `stats slabs` has lines of no class, which count among these.
GENERAL = {
    "uptime_seconds": "uptime",
    "time_seconds": "time",
    "process_user_cpu_seconds_total": "rusage_user",
    "process_system_cpu_seconds_total": "rusage_system",
    "current_bytes": "bytes",
    "limit_bytes": "limit_maxbytes",
    "current_items": "curr_items",
    "items_total": "total_items",
    "read_bytes_total": "bytes_read",
    "written_bytes_total": "bytes_written",
    "current_connections": "curr_connections",
    "connections_total": "total_connections",
    "connections_rejected_total": "rejected_connections",
    "connections_yielded_total": "conn_yields",
    "connections_listener_disabled_total": "listen_disabled_num",
    "items_evicted_total": "evictions",
    "items_reclaimed_total": "reclaimed",
    "item_too_large_total": "store_too_large",
    "item_no_memory_total": "store_no_memory",
    "lru_crawler_starts_total": "lru_crawler_starts",
    "direct_reclaims_total": "direct_reclaims",
    "lru_crawler_items_checked_total": "crawler_items_checked",
    "lru_crawler_reclaimed_total": "crawler_reclaimed",
    "lru_crawler_moves_to_cold_total": "moves_to_cold",
    "lru_crawler_moves_to_warm_total": "moves_to_warm",
    "lru_crawler_moves_within_lru_total": "moves_within_lru",
    "malloced_bytes": "total_malloced",
    "accepting_connections": "accepting_conns",
}
ITEMS = {
    "slab_current_items": "number",
    "slab_items_age_seconds": "age",
    "slab_items_crawler_reclaimed_total": "crawler_reclaimed",
    "slab_items_evicted_total": "evicted",
    "slab_items_evicted_nonzero_total": "evicted_nonzero",
    "slab_items_evicted_time_seconds": "evicted_time",
    "slab_items_evicted_unfetched_total": "evicted_unfetched",
    "slab_items_expired_unfetched_total": "expired_unfetched",
    "slab_items_outofmemory_total": "outofmemory",
    "slab_items_reclaimed_total": "reclaimed",
    "slab_items_tailrepairs_total": "tailrepairs",
    "slab_items_moves_to_cold": "moves_to_cold",
    "slab_items_moves_to_warm": "moves_to_warm",
    "slab_items_moves_within_lru": "moves_within_lru",
    "slab_hot_items": "number_hot",
    "slab_warm_items": "number_warm",
    "slab_cold_items": "number_cold",
    "slab_hot_age_seconds": "age_hot",
    "slab_warm_age_seconds": "age_warm",
    **{f'slab_lru_hits_total{{lru="{name}"}}': f"hits_to_{lru}" for lru, name in LRUS.items()},
}
# Told by memcached only with `-o temporary_ttl`.
ITEMS_OPTIONAL = {"slab_temporary_items": "number_temp"}
SLABS = {
    "slab_chunk_size_bytes": "chunk_size",
    "slab_chunks_per_page": "chunks_per_page",
    "slab_current_pages": "total_pages",
    "slab_current_chunks": "total_chunks",
    "slab_chunks_used": "used_chunks",
    "slab_chunks_free": "free_chunks",
    "slab_chunks_free_end": "free_chunks_end",
}
SLABS_OPTIONAL = {"slab_mem_requested_bytes": "mem_requested"}
SETTINGS = {
    "max_connections": "maxconns",
    "lru_crawler_enabled": "lru_crawler",
    "lru_crawler_sleep": "lru_crawler_sleep",
    "lru_crawler_to_crawl": "lru_crawler_tocrawl",
    "lru_crawler_maintainer_thread": "lru_maintainer_thread",
    "lru_crawler_hot_percent": "hot_lru_pct",
    "lru_crawler_warm_percent": "warm_lru_pct",
    "lru_crawler_hot_max_factor": "hot_max_factor",
    "lru_crawler_warm_max_factor": "warm_max_factor",
}


class Exporter:
    """Scrapes one server."""

    def __init__(self, address):
        self.address = address
        self.missing = []
        self.metrics = {}

    def scrape(self):
        """The metrics, by name and labels. `missing` names those that the server does not tell."""
        self.missing, self.metrics = [], {}
        with socket.create_connection(self.address, timeout=LIMIT_S) as self.connection:
            with self.connection.makefile("rb") as self.answers:
                general, slabs = self.stats("stats"), {}
                classes = {}
                for name, value in self.stats("stats slabs").items():
                    if of_class := re.fullmatch(r"(\d+):(.+)", name):
                        slabs.setdefault(of_class[1], {})[of_class[2]] = value
                    else:
                        general[name] = value
                for name, value in self.stats("stats items").items():
                    _, number, name = name.split(":")
                    classes.setdefault(number, {})[name] = value
                settings = self.stats("stats settings")
        self.metrics[f'version{{version="{general["version"]}"}}'] = 1.0
        self.take(GENERAL, general)
        self.take_commands("commands_total", general, ["_hits", "_misses"])
        for number, lines in classes.items():
            self.take(ITEMS, lines, number)
            self.take(ITEMS_OPTIONAL, lines, number, is_optional=True)
        for number, lines in slabs.items():
            self.take(SLABS, lines, number)
            self.take(SLABS_OPTIONAL, lines, number, is_optional=True)
            self.take_commands("slab_commands_total", lines, ["_hits"], number)
        self.take(SETTINGS, settings)
        self.metrics["up"] = 1.0
        return self.metrics

    def stats(self, request):
        self.connection.sendall(f"{request}\r\n".encode())
        lines = {}
        while (line := self.answers.readline().decode()) != "END\r\n":
            mark, name, value = line.removesuffix("\r\n").split(" ", 2)
            assert mark == "STAT", line
            lines[name] = value
        return lines

    def take(self, table, lines, slab=None, is_optional=False):
        for metric, name in table.items():
            if name in lines:
                self.metrics[labelled(metric, slab)] = number_of(lines[name])
            elif not is_optional:
                self.missing.append(labelled(metric, slab))

    def take_commands(self, metric, lines, outcomes, slab=None):
        words = {"_hits": "hit", "_misses": "miss"}
        for command in COMMANDS:
            table = {
                f'{metric}{{command="{command}",status="{words[outcome]}"}}': command + outcome
                for outcome in outcomes
            }
            self.take(table, lines, slab)
        self.take({f'{metric}{{command="cas",status="badval"}}': "cas_badval"}, lines, slab)
        if slab is None:
            self.take({f'{metric}{{command="flush",status="hit"}}': "cmd_flush"}, lines)
        # A cas counts among the sets, and is taken out of them.
        counted = ["cas_hits", "cas_badval"] + (["cas_misses"] if slab is None else [])
        sets = number_of(lines["cmd_set"]) - sum(number_of(lines[name]) for name in counted)
        self.metrics[labelled(f'{metric}{{command="set",status="hit"}}', slab)] = sets


def labelled(metric, slab):
    """`metric` with the class among its labels, if it is of one."""
    if slab is None:
        return metric
    name, _, labels = metric.partition("{")
    return f'{name}{{slab="{slab}"' + (f",{labels}" if labels else "}")


def number_of(value):
    """A value as the exporter reads it; one that is no number takes the server down for whoever watches."""
    return {"yes": 1.0, "no": 0.0}[value] if value in ("yes", "no") else float(value)
