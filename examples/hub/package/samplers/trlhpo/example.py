import optuna
import optunahub


module = optunahub.load_module(package="samplers/trlhpo")


def objective(trial: optuna.Trial) -> float:
    # Depth first, then that many layers: which parameters there are depends on what was chosen.
    depth = trial.suggest_int("depth", 1, 4)
    error = 1.0
    for k in range(depth):
        width = trial.suggest_int(f"width{k}", 8, 128, log=True)
        kind = trial.suggest_categorical(f"kind{k}", ["conv", "pool", "dense"])
        error *= 0.8 if (kind == "conv") == (k < 2) else 1.1
        error += abs(width - 32) / 1000
    return error


if __name__ == "__main__":
    study = optuna.create_study(sampler=module.TRLHPOSampler(seed=0))
    study.optimize(objective, n_trials=30)
    print(study.best_params)
