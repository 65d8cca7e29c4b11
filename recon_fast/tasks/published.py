"""Numbers that others published, to sit beside ours: never to be claimed as ours."""

from dataclasses import dataclass

SOURCE = "Qi, Dong et al. 2023 (arXiv 2302.02318)"


@dataclass(frozen=True)
class Published:
    """A result of the paper."""

    task: str  # as in result.json
    data: str
    text: str  # as printed
    note: str = ""


# ReCon, tables 1 to 6. Accuracies in percent; segmentation is the mean IoU over instances.
PUBLISHED = (
    Published("finetune", "ScanObjectNN OBJ_BG", "95.18", "95.35 voted"),
    Published("finetune", "ScanObjectNN OBJ_ONLY", "93.29", "93.80 voted"),
    Published("finetune", "ScanObjectNN PB_T50_RS", "90.63", "91.26 voted"),
    Published("finetune", "ModelNet40 1k", "94.5", "voted"),
    Published("finetune", "ModelNet40 8k", "94.7", "voted"),
    Published("fewshot", "ModelNet40 5 way 10 shot", "97.3 ± 1.9"),
    Published("fewshot", "ModelNet40 5 way 20 shot", "98.9 ± 1.2"),
    Published("fewshot", "ModelNet40 10 way 10 shot", "93.3 ± 3.9"),
    Published("fewshot", "ModelNet40 10 way 20 shot", "95.8 ± 3.0"),
    Published("svm", "ModelNet40", "93.4"),
    Published("partseg", "ShapeNetPart", "86.4", "instance mIoU"),
    Published("zeroshot", "ModelNet10", "75.6", "81.6 on train and test"),
    Published("zeroshot", "ModelNet40", "61.7", "66.8 on train and test"),
    Published("zeroshot", "ScanObjectNN", "43.7"),
)
