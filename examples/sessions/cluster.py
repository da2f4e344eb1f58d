"""The cache: three nodes of one cluster on this machine, looked after with `cache-ctl` as an operator would."""

import json
import os
import signal
import subprocess

from processes import Process, wait_until

NODES = 3
# Clients, administration and other nodes are at 0, 100 and 200 above the first port.
OFFSETS = [kind + node for kind in (0, 100, 200) for node in range(NODES)]
CTL_LIMIT_S = 30


class Cluster:
    """`cache-server local-cluster`, which starts nodes again that end."""

    def __init__(self, server, ctl, folder, base_port):
        self.ctl = ctl
        self.base_port = base_port
        self.told = folder / "nodes" / "cluster.json"
        command = [server, "local-cluster", "--preset", "sessions", "--nodes", NODES, "--restart"]
        command += ["--dir", folder / "nodes", "--base-port", base_port]
        self.process = Process("cluster", command, folder / "cluster.log")

    def start(self):
        self.process.start()
        wait_until("the cluster serves", lambda: self.told.exists() or self._must_run())

    def stop(self):
        self.process.stop()

    def client_ports(self):
        return [self.base_port + node for node in range(NODES)]

    def admin_ports(self):
        return [self.base_port + 100 + node for node in range(NODES)]

    def addresses(self):
        return [f"127.0.0.1:{port}" for port in self.client_ports()]

    def kill(self, node):
        """`kill -9` of a node, 0 to 2; it is started again a second later."""
        os.kill(self._pid(node), signal.SIGKILL)

    def restart(self, node):
        """An orderly stop of a node, which hands over what it leads, and its next start."""
        before = self._pid(node)
        os.kill(before, signal.SIGTERM)
        wait_until(f"node {node + 1} is started again", lambda: self._pid(node) != before)

    def drain(self, node):
        """Returns when the node holds nothing any more."""
        self._ask("drain", node + 1)
        wait_until(f"node {node + 1} is empty", lambda: self._holds(node) == 0)

    def undrain(self, node):
        """Returns when the node has its share again."""
        self._ask("undrain", node + 1)
        wait_until(f"node {node + 1} has its share", lambda: self._holds(node))
        self.wait_until_well()

    def wait_until_well(self):
        """Returns when every node finds that all shards have all their copies, and none is on its way."""
        wait_until("all is well with the cluster", self._is_well)

    def _is_well(self):
        views = [self._status(node) for node in range(NODES)]
        # A node that was just killed may not be missed yet.
        if not all(view and view["healthy"] for view in views):
            return False
        moves = self._ask("moves")
        return not moves["running"] and not moves["queued"]

    def _holds(self, node):
        view = self._status(node)
        mine = [each for each in view["nodes"] if each["id"] == node + 1] if view else []
        return mine[0]["shards_copies"] if mine else None

    def _status(self, node):
        """What a node tells of the cluster; None if it tells nothing."""
        port = self.admin_ports()[node]
        command = [self.ctl, "--node", f"127.0.0.1:{port}", "--json", "status"]
        done = self._run(command)
        # 2 is a cluster that lacks something, and tells what.
        return json.loads(done.stdout) if done.returncode in (0, 2) and done.stdout else None

    def _ask(self, *words):
        """Any node's answer: some may be on their way back, or without a leader for a moment."""

        def answer():
            for port in self.admin_ports():
                command = [self.ctl, "--node", f"127.0.0.1:{port}", "--json", *map(str, words)]
                done = self._run(command)
                if done.returncode == 0:
                    return {"told": done.stdout}
            return None

        told = wait_until(f"cache-ctl {' '.join(map(str, words))}", answer)["told"]
        return json.loads(told) if told.strip() else {}

    @staticmethod
    def _run(command):
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=CTL_LIMIT_S)

    def _pid(self, node):
        return json.loads(self.told.read_text())["nodes"][node]["pid"]

    def _must_run(self):
        if not self.process.is_running():
            raise SystemExit(f"the cluster does not start: see {self.process.log}")
        return False
