"""A user model whose primary key is a UUID: for test_settings_matrix.py, which runs it in a process of its own."""

import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Person(AbstractBaseUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)

    USERNAME_FIELD = "id"
    objects = BaseUserManager()
