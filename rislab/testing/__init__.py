"""The contract that every method keeps, as checks for a method's own tests.

Three lines test a method of any package:

    from rislab.testing import check_method

    def test_contract() -> None:
        check_method(lambda: MyTask(clip=CLIPSpec("rislab-tiny-ViT"), image_size=64))
"""

from rislab.testing.contract import CHECKS, Check, Factory, applies, check_method

__all__ = ["CHECKS", "Check", "Factory", "applies", "check_method"]
