"""What each of the clients' scripts prints."""

_GREETINGS = [line for n in range(10) for line in (f"greeting: {n}: Hello foo from bar", f"num: {60 + n}")]
_NO_APPLICATION = (
    "Application 'nope' not found. Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
)

USER_SERVICE = {
    "ray_call.py": ["status code: StatusCode.OK", "greeting: Hello foo from bar", "num: 60"],
    "ray_metadata.py": [
        "greeting: Method2 called model, loading model: 999",
        "trailing metadata key: request_id, value 123",
    ],
    "ray_streaming.py": [
        *_GREETINGS,
        "5 messages, sum 10",
        "greeting: Hello foo from bar",
        "greeting: Hello bye from bar",
    ],
}
NUM_LOOKUP = {
    "ray_context.py": [
        "StatusCode.INVALID_ARGUMENT",
        " not found, adding to nums.",
        "True True",
        "StatusCode.OK",
        "True True",
    ]
}
TENSORFLOW = {
    "tensorflow_predict.py": ["[2.5, 3.0, 4.5]", "half_plus_two 1"],
    "tensorflow_status.py": ["1 AVAILABLE", "StatusCode.NOT_FOUND", "Servable not found for request: Latest(nobody)"],
}
KSERVE = {
    "kserve_infer.py": ["[11.0, 22.0, 33.0]", "[-9.0, -18.0, -27.0]", "[11.0, 22.0, 33.0] None"],
    "kserve_control.py": [
        "True True",
        "True",
        "False",
        "[('INPUT0', 'FP32'), ('INPUT1', 'FP32')]",
        "True",
        "True",
        "add_sub",
    ],
    "kserve_stream.py": ["True", "True True", "after"],
    "kserve_decoupled.py": ["[4]", "[2]", "[0]", "[1]", "StatusCode.UNIMPLEMENTED"],
}
KSERVE_STRICT = {"kserve_strict.py": ["StatusCode.INVALID_ARGUMENT"]}
"""The Triton of the examples is older than the header that this one sends."""
REDHARE = {"redhare_stream.py": ["True", "{'words': 6, 'mean_length': 4.5}"]}
GATEWAY = {
    "ray_health.py": [
        "Applications: ['app1', 'half-plus-two', 'image-classifier', 'image-preprocessor', "
        "'kserve-model', 'num-lookup', 'text-figures']",
        "Health: success",
    ],
    "ray_errors.py": ["status code: StatusCode.NOT_FOUND", f"details: {_NO_APPLICATION}"],
    "tensorflow_route.py": [
        "/service1 [2.5, 3.0, 4.5]",
        "/service1/tensorflow.serving.PredictionService [2.5, 3.0, 4.5]",
        "['x']",
    ],
}
"""What only the gateway answers."""
