"""A shop of two pages, whose sessions are Django's, in the cache.

    CACHE_NODES=127.0.0.1:21000,127.0.0.1:21001 SECRET=... gunicorn app:application

What a session needs of Django stands in `settings` below; the rest is what any application has.
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

settings.configure(
    SECRET_KEY=os.environ["SECRET"],
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    CACHES={
        "default": {
            "BACKEND": "retrying.RetryingCache",
            # All nodes: each of them answers for every key.
            "LOCATION": os.environ["CACHE_NODES"].split(","),
            "KEY_PREFIX": "django",
            "OPTIONS": {
                # A node that fails is left out at once, and tried again after so many seconds. With any
                # other number of attempts the client answers "not there" while it waits to try again.
                "retry_attempts": 0,
                "dead_timeout": 2,
                # The same: an error must be an error, and not a miss.
                "ignore_exc": False,
                "connect_timeout": 1,
                # Longer than a node takes to say that it cannot say (5 s), so that no write is under way
                # any more when its outcome is called unknown.
                "timeout": 8,
                "no_delay": True,
            },
        }
    },
)


def page(request):
    """Who is logged in, and what of theirs the session holds."""
    user = request.session.get("user")
    return JsonResponse({"user": user, "cart": request.session.get("cart", 0)}, status=200 if user else 401)


@require_GET
def home(request):
    return page(request)


@require_POST
def login(request):
    request.session.flush()
    request.session["user"] = request.POST["user"]
    return page(request)


@require_POST
def add_to_cart(request):
    if "user" in request.session:
        request.session["cart"] = request.session.get("cart", 0) + 1
    return page(request)


@require_POST
def logout(request):
    request.session.flush()
    return HttpResponse(status=204)


@require_GET
def health(request):
    """Whether this replica takes requests. Not whether the cache does: another replica would find the same."""
    return HttpResponse(status=204)


urlpatterns = [
    path("", home),
    path("login", login),
    path("cart", add_to_cart),
    path("logout", logout),
    path("health", health),
]

application = get_wsgi_application()
