import secrets

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command

from board.models import Comment

USERS = ["otter", "heron", "admin"]

COMMENTS = [
    ("heron", "Open this page in a second window, and write something here. No reload, no polling."),
    ("otter", "@heron What if my laptop sleeps in between?"),
    ("heron", "@otter Then the page reconnects, and what you missed arrives, in order."),
]


class Command(BaseCommand):
    requires_system_checks = ()  # they miss tables that it is about to make
    help = (
        "Makes the example's database: its tables, three users, and the first comments. A user's password is the name; "
        "where the example is shown to others it is a new one each time."
    )

    def handle(self, *args, **options):
        call_command("migrate", verbosity=0)
        User = get_user_model()
        passwords = {name: name if settings.DEBUG else secrets.token_urlsafe(9) for name in USERS}
        for name, password in passwords.items():
            is_admin = name == "admin"
            user, _ = User.objects.get_or_create(
                username=name, defaults={"is_staff": is_admin, "is_superuser": is_admin}
            )
            if not user.check_password(password):
                user.set_password(password)
                user.save()
        if not Comment.objects.exists():
            # bulk_create() is silent: no stream is open in this process, so that there is nobody to tell.
            for comment in Comment.objects.bulk_create(Comment(author=author, text=text) for author, text in COMMENTS):
                comment.note_mentioned()
        if settings.DEBUG:
            users = f"Its users, each with the name as password: {', '.join(USERS)}"
        else:
            users = f"Its users and their passwords: {', '.join(map(' '.join, passwords.items()))}"
        self.stdout.write(f"Open the board in two windows. {users}.")
