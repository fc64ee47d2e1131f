import re

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.template.loader import render_to_string

from django_sse_live import live_model, send_to_user


def rendered(comment, action):
    """What the browsers get: the very markup that the page has, so that there is one template and not two."""
    if action == "deleted":
        return {"id": comment.pk}
    return {
        "id": comment.pk,
        "author": comment.author,
        "text": comment.text,
        "html": render_to_string("board/_comment.html", {"comment": comment}),
    }


@live_model(channel="comments", payload=rendered)
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
        is_new = self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            if is_new:
                self.tell_the_mentioned()

    def tell_the_mentioned(self):
        """`@name` in a comment is a notification for that user alone."""
        html = render_to_string("board/_mention.html", {"comment": self})
        for user in self.note_the_mentioned():
            send_to_user(user, "notification", {"id": self.pk, "author": self.author, "html": html})

    def note_the_mentioned(self):
        names = set(re.findall(r"@(\w+)", self.text)) - {self.author}
        users = get_user_model().objects.filter(username__in=names)
        self.mentioned.set(users)
        return users
