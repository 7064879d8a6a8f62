"""The same stream of days judged by prescore, by Evidently and by NannyML, each with its defaults."""
