"""The student: ZegCLIP on a frozen CLIP."""
