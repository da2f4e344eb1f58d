"""The applications: two replicas of each, and the balancer in front of them and of the cache."""

import os
import pathlib
import pwd
import shutil
import subprocess
import sys

import processes
from processes import Process, wait_until

HERE = pathlib.Path(__file__).resolve().parent
STACKS = ("django", "express", "php", "axum")
REPLICAS = 2
# Of the balancer and of the replicas, above the cluster's first port.
FRONTS = {"django": 10, "express": 11, "php": 12, "axum": 13, "cache": 14}
OFFSETS = range(10, 30)
SYSTEM_PATHS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def program(name):
    """Where a program is; daemons lie where an ordinary user's PATH does not lead."""
    found = shutil.which(name, path=SYSTEM_PATHS)
    if found is None:
        raise SystemExit(f"{name} is not installed")
    return found


def php_fpm():
    """Debian names it after its version."""
    folders = [pathlib.Path(each) for each in SYSTEM_PATHS.split(os.pathsep) if each]
    found = sorted(each for folder in folders for each in folder.glob("php-fpm*"))
    if not found:
        raise SystemExit("php-fpm is not installed")
    return found[-1]


def node_modules():
    """Where npm has put what express/package.json asks for, as an environment."""
    modules = os.environ.get("CACHE_NODE_MODULES")
    return {"NODE_PATH": modules} if modules else {}


def missing():
    """What this machine lacks, in words."""
    lacks = []
    for find in (lambda: program("haproxy"), lambda: program("node"), php_fpm):
        try:
            find()
        except SystemExit as error:
            lacks.append(str(error))
    if lacks:
        return lacks
    if "memcached" not in said_by([php_fpm(), "-m"]).split():
        lacks.append("PHP has no Memcached")
    for module in ("express", "express-session", "connect-memjs"):
        if "there" not in said_by([program("node"), "-e", f"require('{module}'); console.log('there')"]):
            lacks.append(f"{module} is not installed where CACHE_NODE_MODULES says")
    return lacks


def said_by(command):
    environment = {**os.environ, **node_modules()}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=HERE / "express", env=environment
    ).stdout


class Replica(Process):
    """One instance of an application, at a port of its own."""

    def __init__(self, stack, number, port, folder, cluster, front_port, programs):
        environment = {
            "PORT": str(port),
            "SECRET": "not a secret: nothing here leaves this machine",
            "CACHE_NODES": ",".join(cluster.addresses()),
            "CACHE_FRONT": f"{processes.HOST}:{front_port}",
        }
        command = getattr(self, f"_{stack}")(environment, port, programs)
        name = f"{stack}-{number}"
        super().__init__(name, command, folder / f"{name}.log", environment)
        self.port = port

    def start(self):
        super().start()
        wait_until(f"{self.name} serves", self._serves, limit_s=60)

    def _serves(self):
        if not self.is_running():
            raise SystemExit(f"{self.name} does not start: see {self.log}")
        return processes.serves(self.port)

    @staticmethod
    def _django(_, port, __):
        command = [sys.executable, "-m", "gunicorn", "--chdir", HERE / "django", "--threads", 8]
        command += ["--no-control-socket", "--bind", f"{processes.HOST}:{port}"]
        return [*command, "app:application"]

    @staticmethod
    def _express(environment, *_):
        environment.update(node_modules())
        return [program("node"), HERE / "express" / "app.js"]

    @staticmethod
    def _php(environment, *_):
        # After the system's own settings.
        environment["PHP_INI_SCAN_DIR"] = f":{HERE / 'php' / 'ini'}"
        environment["FPM_USER"] = pwd.getpwuid(os.geteuid()).pw_name
        # Root may run it here, where it serves this machine alone.
        as_root = ["--allow-to-run-as-root"] if os.geteuid() == 0 else []
        return [php_fpm(), *as_root, "--nodaemonize", "--fpm-config", HERE / "php" / "fpm.conf"]

    @staticmethod
    def _axum(_, __, programs):
        if not (programs / "axum-shop").is_file():
            raise SystemExit(f"axum-shop is not in {programs}: cargo build -p axum-shop")
        return [programs / "axum-shop"]


class Shop:
    """All replicas of the chosen applications, and the balancer."""

    def __init__(self, stacks, folder, cluster, programs):
        base = cluster.base_port
        environment = {"PHP_ROOT": str(HERE / "php")}
        self.ports = {name: base + offset for name, offset in FRONTS.items()}
        environment.update({name.upper(): str(port) for name, port in self.ports.items()})
        for number, (client, admin) in enumerate(zip(cluster.client_ports(), cluster.admin_ports()), 1):
            environment.update({f"NODE_{number}": str(client), f"ADMIN_{number}": str(admin)})
        self.replicas = {stack: [] for stack in stacks}
        for index, stack in enumerate(STACKS):
            for number in range(1, REPLICAS + 1):
                port = base + 20 + REPLICAS * index + number - 1
                environment[f"{stack.upper()}_{number}"] = str(port)
                if stack in stacks:
                    replica = Replica(stack, number, port, folder, cluster, self.ports["cache"], programs)
                    self.replicas[stack].append(replica)
        command = [program("haproxy"), "-db", "-f", HERE / "haproxy.cfg"]
        self.balancer = Process("haproxy", command, folder / "haproxy.log", environment)

    def start(self):
        for replica in self.all_replicas():
            replica.start()
        self.balancer.start()
        wait_until("the balancer serves", lambda: processes.serves(self.ports["cache"]))

    def stop(self):
        self.balancer.stop()
        for replica in self.all_replicas():
            replica.stop()

    def all_replicas(self):
        return [replica for replicas in self.replicas.values() for replica in replicas]
