from django import forms
from django.contrib.auth import get_user_model

from .models import Comment


class CommentForm(forms.ModelForm):
    class Meta:
        model = Comment
        fields = ["author", "text"]
        labels = {"author": "Your name", "text": "Comment"}
        widgets = {
            "author": forms.TextInput(attrs={"autocomplete": "nickname"}),
            "text": forms.Textarea(attrs={"rows": 2, "placeholder": "Say something. @otter or @heron hears of it."}),
        }

    def __init__(self, *args, user, **kwargs):
        super().__init__(*args, **kwargs)
        if user.is_authenticated and not self.instance.pk:
            self.instance.author = user.get_username()
        if self.instance.author:
            del self.fields["author"]

    def clean_author(self):
        author = self.cleaned_data["author"]
        if get_user_model().objects.filter(username__iexact=author).exists():
            raise forms.ValidationError("That is the name of a user. Log in to sign with it, or choose another.")
        return author
