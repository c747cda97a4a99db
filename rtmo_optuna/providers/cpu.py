"""The CPU provider, which every ONNX Runtime has."""

from rtmo_optuna.providers.base import CPU_ARENA, EXECUTION, GRAPH, PRECISION, Knob, Provider, combined, flag
from rtmo_optuna.types.request import Scope

PROVIDER = Provider(
    "cpu", "CPUExecutionProvider",
    knobs=(
        Knob("intra_op_num_threads", Scope.SESSION, (0, 1, 2, 4, 8, 16, 32), "threads inside an operator, 0: by core",
             ceiling="cores", open=True),
        EXECUTION,
        Knob("inter_op_num_threads", Scope.SESSION, (0, 2, 4, 8), "threads across operators, 0: by core",
             needs=("execution_mode", "ORT_PARALLEL"), ceiling="cores", open=True),
        GRAPH,
        CPU_ARENA,
        Knob("enable_mem_pattern", Scope.SESSION, (True, False), "plan activations' memory ahead",
             needs=("execution_mode", "ORT_SEQUENTIAL")),
        flag("session.intra_op.allow_spinning", Scope.ENTRY, "idle threads spin before they sleep", default=True),
        PRECISION,  # few kernels take float16 here, so that it is no faster: it shows what becomes of the answers
        flag("session.set_denormal_as_zero", Scope.ENTRY, "treat denormal numbers as zero"),
    ),
    combined=(
        combined(
            "execution",
            sequential={},
            parallel={"execution_mode": "ORT_PARALLEL"},
            parallel_2={"execution_mode": "ORT_PARALLEL", "inter_op_num_threads": 2},
            parallel_4={"execution_mode": "ORT_PARALLEL", "inter_op_num_threads": 4},
        ),
    ),
)  # fmt: skip
