# ECS itself reads the secrets and writes the logs (execution); each service has a role of its own.

data "aws_iam_policy_document" "tasks_assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-execution"
  assume_role_policy = data.aws_iam_policy_document.tasks_assume.json
}

data "aws_iam_policy_document" "execution" {
  statement {
    sid       = "Secrets"
    actions   = ["ssm:GetParameters"]
    resources = [for name in ["database-url", "redis-url", "secret-key", "api-key"] : var.parameter_arns[name]]
  }
  statement {
    sid       = "OpenThem"
    actions   = ["kms:Decrypt"]
    resources = [var.kms_key_arn]
  }
  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = [for each in aws_cloudwatch_log_group.this : "${each.arn}:*"]
  }
  statement {
    sid       = "PullImages"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"] # it knows no resource
  }
  statement {
    sid       = "ReadImages"
    actions   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]
    resources = ["arn:aws:ecr:*:*:repository/loraplex/*"]
  }
}

resource "aws_iam_role_policy" "execution" {
  name   = "execution"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.execution.json
}

resource "aws_iam_role" "task" {
  for_each           = local.services
  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.tasks_assume.json
}

data "aws_iam_policy_document" "home" {
  statement {
    sid       = "TheHomeFolder"
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    resources = [var.home.arn]
    condition {
      test     = "StringEquals"
      variable = "elasticfilesystem:AccessPointArn"
      values   = [var.home.access_point]
    }
  }
}

resource "aws_iam_role_policy" "home" {
  for_each = local.services
  name     = "home"
  role     = aws_iam_role.task[each.key].id
  policy   = data.aws_iam_policy_document.home.json
}

data "aws_iam_policy_document" "adapters" {
  statement {
    sid       = "Adapters"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["arn:aws:s3:::${var.bucket}/adapters/*"]
  }
  statement {
    sid       = "ListThem"
    actions   = ["s3:ListBucket"]
    resources = ["arn:aws:s3:::${var.bucket}"]
  }
  statement {
    sid       = "TheirKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.kms_key_arn]
  }
}

resource "aws_iam_role_policy" "adapters" {
  for_each = toset(["api", "jobs"])
  name     = "adapters"
  role     = aws_iam_role.task[each.key].id
  policy   = data.aws_iam_policy_document.adapters.json
}

data "aws_iam_policy_document" "models" {
  statement {
    sid       = "Models"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["arn:aws:s3:::${var.bucket}/models/*"]
  }
}

resource "aws_iam_role_policy" "models" {
  name   = "models"
  role   = aws_iam_role.task["jobs"].id
  policy = data.aws_iam_policy_document.models.json
}

locals {
  # The leading scaler lists what runs, a task worker starts and ends it.
  driver_roles = { for pair in setproduct(["scaler", "tasks"], keys(var.driver_policies)) : join("-", pair) => pair }
}

resource "aws_iam_role_policy" "driver" {
  for_each = local.driver_roles
  name     = "pool-${each.value[1]}"
  role     = aws_iam_role.task[each.value[0]].id
  policy   = var.driver_policies[each.value[1]]
}
