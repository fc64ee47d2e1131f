"""What the page sends: that somebody is writing, and what was written."""

from django.core.exceptions import ValidationError

from django_sse_live import broadcast, on_message

from .forms import CommentForm
from .views import remember


@on_message("typing", channel="comments")
def typing(message):
    name = message.user.get_username() or message.request.session.get("author") or "Somebody"
    # The page that sent it knows itself by this, and shows nothing.
    broadcast(message.channel, "typing", {"name": name, "by": message.client_id})
    return {"ok": True}


@on_message("comment", channel="comments")
def write(message):
    """The same form as the view's: what it refuses is told as the message's error."""
    fields = message.data if isinstance(message.data, dict) else {}
    form = CommentForm(fields, user=message.user)
    if not form.is_valid():
        raise ValidationError([error for errors in form.errors.values() for error in errors])
    comment = form.save()
    remember(message.request, comment)
    return {"id": comment.pk}
