"""A web application in one file: counts its visits in the redis that shares its pod."""

import os
import socket
import sys

import redis
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG=False,
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.urandom(32).hex(),
)

store = redis.Redis(
    host=os.environ.get("REDIS_HOST", "127.0.0.1"),
    port=int(os.environ.get("REDIS_PORT_NUMBER", "6379")),
    socket_timeout=2,
)


def index(request):
    try:
        visits = store.incr("visits")
    except redis.RedisError as error:
        return HttpResponse(f"redis does not answer: {error}\n", status=503)
    return HttpResponse(f"It worked! Visit {visits}, served by {socket.gethostname()}\n")


urlpatterns = [path("", index)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
