"""A Django project without files: three cache nodes, sessions, and a database in memory."""

import django
from django.conf import settings

import nodes

BACKEND = "django.core.cache.backends.memcached.PyMemcacheCache"


def locations():
    return [f"{host}:{port}" for host, port in nodes.addresses()]


def setup():
    """Configures Django once; later calls do nothing."""
    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="not a secret: nothing here leaves the process",
        USE_TZ=True,
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CACHES={
            "default": {"BACKEND": BACKEND, "LOCATION": locations()},
            "one-node": {"BACKEND": BACKEND, "LOCATION": locations()[0]},
            "prefixed": {
                "BACKEND": BACKEND,
                "LOCATION": locations(),
                "KEY_PREFIX": "prefix",
                "VERSION": 7,
                "TIMEOUT": 100,
            },
        },
        SESSION_CACHE_ALIAS="default",
        SESSION_COOKIE_AGE=1209600,
        ROOT_URLCONF=(),
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
