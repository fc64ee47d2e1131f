import re

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django.urls import reverse

from django_sse_live import broadcast_patch, live_model


@live_model(
    channel="comments",
    fields=["id", "author", "text"],
    template="board/_comment.html",
    target="comments",
    insert="prepend",
)
class Comment(models.Model):
    author = models.CharField(max_length=40)
    text = models.TextField(max_length=500)
    created_at = models.DateTimeField(auto_now_add=True)
    mentioned = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="mentions", blank=True, editable=False)

    class Meta:
        ordering = ["-pk"]

    def __str__(self):
        return f"{self.author}: {self.text[:40]}"

    def save(self, *args, **kwargs):
        with transaction.atomic():
            super().save(*args, **kwargs)
            before = set(self.mentioned.all())
            tell_mentioned(before | set(self.note_mentioned()))

    def get_absolute_url(self):
        return reverse("comment", args=[self.pk])

    def note_mentioned(self):
        names = set(re.findall(r"@(\w+)", self.text)) - {self.author}
        users = get_user_model().objects.filter(username__in=names)
        self.mentioned.set(users)
        return users


@receiver(pre_delete, sender=Comment)
def before_delete(instance, **kwargs):
    tell_mentioned(instance.mentioned.all())


def tell_mentioned(users):
    """The list of mentions is each user's own: the pages of that user, and nobody else's, fetch it anew."""
    for user in users:
        broadcast_patch(f"user:{user.pk}", "refresh", "mentions", type="notification")
