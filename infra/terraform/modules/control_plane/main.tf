# API, scaler, task workers as containers on ECS Fargate. Fargate and not EC2: these processes hold no
# state and need no GPU; nobody patches their machines, a rolling update and a second zone come with
# the service. Replicas are the GPU pools' (module gpu_pool).

data "aws_region" "here" {}

locals {
  home = "/var/lib/loraplex"
  environment = merge({
    LORAPLEX_ADAPTER_STORE      = "s3://${var.bucket}/adapters"
    LORAPLEX_MODEL_STORE        = "s3://${var.bucket}/models"
    LORAPLEX_ALLOW_LOCAL_MODELS = "false"
    LORAPLEX_LOG_FORMAT         = "json"
    LORAPLEX_METRICS_HOST       = "0.0.0.0"
    LORAPLEX_REQUEST_TIMEOUT_S  = tostring(var.request_timeout_s)
    LORAPLEX_TRAINING_JOBS      = "0" # these machines have no GPU
    HF_HOME                     = "${local.home}/huggingface"
    AWS_REGION                  = data.aws_region.here.name
  }, var.settings)
  secrets = {
    LORAPLEX_DATABASE_URL = var.parameter_arns["database-url"]
    LORAPLEX_REDIS_URL    = var.parameter_arns["redis-url"]
    LORAPLEX_SECRET_KEY   = var.parameter_arns["secret-key"]
  }
  celery = ["python", "-m", "celery", "-A", "scheduler.tasks.app", "worker", "--pool=threads", "--concurrency=4", "--loglevel=INFO", "--without-gossip", "--without-mingle"]

  # What the image's own health check does, as ECS wants it said.
  alive = ["CMD-SHELL", "[ -n \"$(find \"$LORAPLEX_ALIVE_FILE\" -newermt -30sec)\" ]"]
  services = {
    api = {
      image  = var.images.api, cpu = 1024, memory = 2048, count = var.apis.min, command = ["python", "-m", "api"], patient = false
      health = ["CMD-SHELL", "python -c \"import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)\""]
    }
    scaler = { # one leads, the other takes over
      image = var.images.scheduler, cpu = 512, memory = 1024, count = 2, command = ["python", "-m", "scheduler"], health = local.alive, patient = false
    }
    tasks = {
      image = var.images.scheduler, cpu = 512, memory = 1024, count = 2, command = concat(local.celery, ["-Q", "tasks"]), health = local.alive, patient = true
    }
    jobs = { # downloads of base models and adapters
      image = var.images.gpu_worker, cpu = 1024, memory = 4096, count = 1, command = concat(local.celery, ["-Q", "imports,training"]), health = local.alive, patient = true
    }
  }
}

resource "aws_ecs_cluster" "this" {
  name = var.name
  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_cloudwatch_log_group" "this" {
  for_each          = local.services
  name              = "/${var.name}/${each.key}"
  retention_in_days = var.log_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_ecs_task_definition" "this" {
  for_each                 = local.services
  family                   = "${var.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = each.value.cpu
  memory                   = each.value.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task[each.key].arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "home"
    efs_volume_configuration {
      file_system_id     = var.home.file_system_id
      transit_encryption = "ENABLED"
      authorization_config {
        access_point_id = var.home.access_point_id
        iam             = "ENABLED"
      }
    }
  }

  volume {
    name = "tmp"
  }

  container_definitions = jsonencode(concat(
    [merge(local.container[each.key], {
      command   = each.value.command
      dependsOn = [{ containerName = "migrate", condition = "SUCCESS" }]
      # A task worker is silent while the queue is away: that alone is no reason to end what it does.
      healthCheck = {
        command = each.value.health, interval = each.value.patient ? 60 : 10, timeout = 5, retries = each.value.patient ? 10 : 3, startPeriod = 60
      }
    })],
    # The tables, before the first process of a new version starts. Those at once wait for each other.
    [merge(local.container[each.key], {
      name         = "migrate"
      essential    = false
      command      = ["python", "-m", "loraplex.database"]
      portMappings = []
      secrets = concat(local.container[each.key].secrets, [
        { name = "LORAPLEX_API_KEY", valueFrom = var.parameter_arns["api-key"] },
      ])
    })],
  ))
}

locals {
  container = {
    for name, service in local.services : name => {
      name                   = name
      image                  = service.image
      essential              = true
      readonlyRootFilesystem = true
      user                   = "10001"
      stopTimeout            = 60
      linuxParameters        = { initProcessEnabled = true }
      environment            = [for key, value in local.environment : { name = key, value = value }]
      secrets                = [for key, arn in local.secrets : { name = key, valueFrom = arn }]
      portMappings           = name == "api" ? [{ containerPort = 8000, protocol = "tcp" }] : []
      mountPoints = [
        { sourceVolume = "home", containerPath = local.home, readOnly = false },
        { sourceVolume = "tmp", containerPath = "/tmp", readOnly = false },
      ]
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.this[name].name
          awslogs-region        = data.aws_region.here.name
          awslogs-stream-prefix = name
        }
      }
    }
  }
}

resource "aws_ecs_service" "this" {
  for_each                           = local.services
  name                               = each.key
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.this[each.key].arn
  launch_type                        = "FARGATE"
  desired_count                      = each.value.count
  deployment_minimum_healthy_percent = 100 # a new one works before an old one goes
  deployment_maximum_percent         = 200
  propagate_tags                     = "SERVICE"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.private_subnet_ids
    security_groups  = each.key == "api" ? [var.client_security_group_id, aws_security_group.containers.id, aws_security_group.api.id] : [var.client_security_group_id, aws_security_group.containers.id]
    assign_public_ip = false
  }

  dynamic "load_balancer" {
    for_each = each.key == "api" ? [1] : []
    content {
      target_group_arn = aws_lb_target_group.api.arn
      container_name   = "api"
      container_port   = 8000
    }
  }

  lifecycle {
    ignore_changes = [desired_count] # of the API: its scaling's
  }
  depends_on = [aws_lb_listener.https]
}

resource "aws_appautoscaling_target" "api" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this["api"].name}"
  min_capacity       = var.apis.min
  max_capacity       = var.apis.max
}

resource "aws_appautoscaling_policy" "api" {
  name               = "${var.name}-api-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.api.service_namespace
  scalable_dimension = aws_appautoscaling_target.api.scalable_dimension
  resource_id        = aws_appautoscaling_target.api.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = 60
    scale_in_cooldown  = 300
    scale_out_cooldown = 30
    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}
