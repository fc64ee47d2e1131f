from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError, call_command

from board.models import Comment

USERS = ["otter", "heron", "admin"]

COMMENTS = [
    ("heron", "Open this page in a second window, and write something here. No reload, no polling."),
    ("otter", "@heron What if my laptop sleeps in between?"),
    ("heron", "@otter Then the page reconnects, and what you missed arrives, in order."),
]


class Command(BaseCommand):
    requires_system_checks = ()  # they miss tables that it is about to make
    help = "Makes the example's database: its tables, three users whose password is their name, and the first comments."

    def handle(self, *args, **options):
        if not settings.DEBUG:
            raise CommandError("The users' passwords are their names: not with EXAMPLE_DEBUG=0.")
        call_command("migrate", verbosity=0)
        User = get_user_model()
        for name in USERS:
            if not User.objects.filter(username=name).exists():
                is_admin = name == "admin"
                User.objects.create_user(name, password=name, is_staff=is_admin, is_superuser=is_admin)
        if not Comment.objects.exists():
            # bulk_create() is silent: no stream is open in this process, so that there is nobody to tell.
            for comment in Comment.objects.bulk_create(Comment(author=author, text=text) for author, text in COMMENTS):
                comment.note_mentioned()
        self.stdout.write(
            f"Open the board in two windows. Its users, each with the name as password: {', '.join(USERS)}."
        )
