"""Django's cache by pymemcache, asking again where it failed.

Django's session takes any error of the cache for "there is no such session", and its middleware then takes the
cookie away. So an error must not reach it while another node can answer. pymemcache brings what asks again; only
Django's backend has no option for it.
"""

from django.core.cache.backends.memcached import PyMemcacheCache
from django.utils.functional import cached_property
from pymemcache.client.retrying import RetryingClient
from pymemcache.exceptions import MemcacheClientError

# One for each node, and one more. The client leaves a node out that failed, so each time another is asked.
ATTEMPTS = 4
PAUSE_S = 0.05


class RetryingCache(PyMemcacheCache):
    """As `PyMemcacheCache`. For sessions: what they ask for can be asked twice."""

    @cached_property
    def _cache(self):
        client = super()._cache
        return RetryingClient(client, ATTEMPTS, PAUSE_S, do_not_retry_for=[MemcacheClientError])
