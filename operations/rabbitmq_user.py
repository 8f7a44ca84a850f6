"""The user of the services at RabbitMQ, as definitions that a node imports at each start.

`default_user` and `default_pass` count only at a node's first start; definitions replace the password of a user that
exists (https://www.rabbitmq.com/docs/definitions#import-on-boot).
"""

import base64
import hashlib
import json
import os
import re

CONFIGURATION = "rabbitmq.conf"
DEFINITIONS = "definitions.json"
_IMPORT = "load_definitions = /etc/rabbitmq/definitions.json\n"


def definitions(user: str, password: str, vhost: str) -> str:
    """A file with the user as an administrator with every permission on its virtual host."""
    allowed = {"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}
    login = {
        "name": user,
        "password_hash": hash_password(password, os.urandom(4)),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ["administrator"],
    }
    return json.dumps({"users": [login], "vhosts": [{"name": vhost}], "permissions": [allowed]}, indent=1)


def hash_password(password: str, salt: bytes) -> str:
    """RabbitMQ's hash: salt of 4 bytes, then SHA-256 of salt and password, in Base64."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def configuration(given: str) -> str:
    """The operator's configuration, if any, with the import of definitions unless it imports some itself."""
    if re.search(r"^\s*(load_definitions|definitions\.)", given, re.MULTILINE):
        return f"{given}\n"
    return f"{given}\n{_IMPORT}".lstrip()
